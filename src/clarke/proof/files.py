"""Proofs and kept steps as files: `docs/certificate.md` describes every field."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.constraints import flatten
from clarke.constraints.reads import held_sides
from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.answers import Smallest
from clarke.decide.certificate import Certificate
from clarke.decide.descent import Stationarity
from clarke.decide.membership import Member, Membership
from clarke.decide.recomputed import Defect, as_defects, rebuilt
from clarke.decide.verification import is_replayed
from clarke.errors import InputError, ModifiedSinceError, ProofError, UnsupportedError
from clarke.fast import Layered
from clarke.kinks.smooth import OpClass, classify
from clarke.proof.checked import fields, printable, text, truth
from clarke.proof.claims import entry_apart, gradient_of, named, proved, touched, write
from clarke.proof.container import pack, put, read_bytes, refuse, unpack
from clarke.proof.instructions import check_instructions, instructions
from clarke.proof.plain import program_from_plain, program_to_plain
from clarke.proof.reading import read
from clarke.proof.sizes import first_run
from clarke.proof.slim import is_slim, slim, whole
from clarke.proof.theorem import (
    KIND,
    NO_POINT,
    check_theorem,
    follows,
    theorem_claim,
    without_values,
)
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from clarke.capture import Trace
    from clarke.theorems import Context, Explanation
FORMAT, VERSION = "clarke proof", 2
_KEYS = frozenset(
    {"format", "version", "written_by", "verdict", "theorem", "replayed", "program", "claim"}
    | {"assumed", "instructions"}
)
_NOTHING = MappingProxyType({"kind": "nothing"})  # a step that is kept to be judged later
NO_PROOF = MappingProxyType({"missing": "a step that is still to be judged"})


@dataclass(frozen=True, eq=False)
class Stored:
    """A proof, or a step that is still to be judged, as it stands in a file.

    Attributes:
        verdict: The verdict that the file claims.
        theorem: The argument, as reports name it.
        trace: The recorded operations and what they read.
        variables: External slots of the variables.
        replayed: The recorded operations give the gradient; else it was handed over.
        claim: What the proof says, as plain data.
        instructions: The program in words for the checker without clarke, or why there are none.
        tensors: Everything else.
    """

    verdict: Verdict
    theorem: str
    trace: Trace
    variables: tuple[int, ...]
    replayed: bool
    claim: Mapping[str, Any]
    instructions: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def gradient(self) -> tuple[torch.Tensor, ...]:
        """The gradient, one tensor for each variable."""
        kept = (self.tensors.get(f"gradient.{i}") for i in range(len(self.variables)))
        return tuple(g for g in kept if g is not None)

    def certificate(self, deadline: Deadline = UNLIMITED) -> Certificate:
        """The proof as `clarke.check` returns it, its program built from the file.

        Raises:
            ProofError: Something is out of place.
            Defect: Nothing of the kind holds of this program.
            OutOfTimeError: The time limit ended.
        """
        if self.is_theorem:
            raise refuse("it holds a theorem, which `clarke verify` derives again")
        if self.claim == _NOTHING:
            raise refuse("it holds a step that is still to be judged, and no proof")
        trace = first_run(self.trace, deadline)
        program = rebuilt(trace, self.variables, deadline, held=True)
        proof = read(self.claim, program, self.tensors)
        if not proof.argument.holds_sides and bool(held_sides(program.analysis).any()):
            raise Defect("a branch of Python rests on a tie, and the proof speaks of both sides")
        return proof

    def defects(self, *, seconds: float | None = None) -> tuple[str, ...]:
        """What is wrong with the proof, in words; empty when it holds.

        Everything is computed again from the program and the point of the file, and what is in the
        file is held against it.

        Args:
            seconds: Time limit.

        Raises:
            OutOfTimeError: The limit passed, which says nothing of the proof.
        """
        found: list[str] = []
        with Deadline.after(seconds) as deadline, as_defects(found):
            if self.is_theorem:
                self._check_theorem(deadline)
                return tuple(found)
            try:
                proof = self.certificate(deadline)
            except ProofError as error:
                raise Defect(str(error)) from error
            self._check_statement(proof, deadline)
            proof.check(proof.replay, run=True)
        return tuple(found)

    @property
    def is_theorem(self) -> bool:
        """Whether it is about all inputs and parameters, and not about a point."""
        return self.claim.get("kind") == KIND

    def _check_theorem(self, deadline: Deadline) -> None:
        used: dict[str, torch.Tensor] = {}
        program_to_plain(self.trace, self.variables, used)
        if used.keys() != self.tensors.keys() or self.instructions != NO_POINT:
            raise Defect("the file holds what belongs to no theorem")
        if self.verdict is not Verdict.UNDECIDED:
            raise Defect("a theorem is no verdict on a point")
        try:
            check_theorem(self.trace, self.variables, self.claim, deadline)
        except ProofError as error:
            raise Defect(str(error)) from error

    def _check_statement(self, proof: Certificate, deadline: Deadline) -> None:
        program = proof.replay
        listed = self.tensors.get("touched")
        same = listed is not None and listed.dtype == torch.int64
        if listed is None or not (same and torch.equal(listed, touched(program))):
            raise Defect("the touched kinks are not those of the program at the point")
        if self.verdict not in proved(proof):
            raise Defect(f"it is no proof of {self.verdict.name}")
        gradient = gradient_of(proof)
        if gradient and self.replayed != is_replayed(program, flatten(gradient)):
            raise Defect("the gradient comes from somewhere else than the file says")
        used = {"touched": listed, **named("gradient", gradient)}
        write(proof, used)
        used.update(check_instructions(program, self.instructions, self.tensors, deadline))
        program_to_plain(self.trace, self.variables, used)
        if used.keys() != self.tensors.keys():
            raise Defect("the file holds tensors that nobody asks for")


def save_certificate(
    certificate: Any,
    path: str | PathLike[str],
    *,
    verdict: Verdict | None = None,
    theorem: str = "",
) -> Path:
    """Write a proof to a file, which `clarke verify` and `clarke_verify.py` check.

    Args:
        certificate: Of a report, of a set's answer, or of an audited step.
        path: Where to; by custom it ends in ``.clarke``.
        verdict: The verdict of the report; by default the strongest that the proof proves.
        theorem: The argument, as the report names it.

    Raises:
        InputError: It is none of these, or an answer that is open.
        UnsupportedError: The program holds what has no form in a file: a custom Function, operators
            of somebody else, sparse or complex constants.
        ModifiedSinceError: The program's tensors have changed since it was judged.
    """
    holds = isinstance(certificate, (Membership, Stationarity))
    proof = certificate.certificate if holds else certificate
    if not isinstance(proof, Certificate):
        raise InputError(
            f"A {type(certificate).__name__} is no proof of a verdict on a program. Pass "
            "report.certificate."
        )
    if proof.seal != proof.sealed().seal:
        raise _changed()
    program, argument = proof.replay, proof.argument
    if isinstance(argument, Layered):  # it is put together when it is asked for
        proof = argument.whole(program, proof.gradient)
    elif isinstance(argument, Member):
        if argument.inside is None:
            raise InputError(
                "Whether the vector is in the set is open (inside is None), so that there is no "
                "proof to save. Ask of a vector farther from its boundary, or give the set more "
                "time (seconds=)."
            )
        proof = replace(proof, argument=argument.with_directions(program))
    elif isinstance(argument, Smallest):
        member = argument.member.with_directions(program)
        proof = replace(proof, argument=replace(argument, member=member))
    tensors = dict(named("gradient", gradient_of(proof)))
    tensors["touched"] = touched(program)
    claim = write(proof, tensors)
    told, words = instructions(program)
    if words:
        told["entry"] = entry_apart(proof)
    tensors |= words
    gradient = gradient_of(proof)
    content, tensors = _plain(
        verdict or proved(proof)[0],
        theorem,
        program.analysis.recorded,
        program.variables,
        not gradient or is_replayed(program, flatten(gradient)),
        tensors,
    )
    content |= {"claim": claim, "instructions": told}
    return put(path, pack(content, slim(tensors) if is_slim(content) else tensors))


def _changed() -> ModifiedSinceError:
    return ModifiedSinceError(
        "The certificate, or a tensor that its program read, has changed since the gradient was "
        "judged, so that its file would be about another program. Save it before anything writes "
        "to the parameters, for example before optimizer.step()."
    )


def save_step(
    trace: Trace,
    variables: Sequence[int],
    gradient: Sequence[torch.Tensor],
    path: str | PathLike[str],
    *,
    theorem: str = "",
) -> Path:
    """Write a step that is still to be judged: what ran, where, and the gradient.

    Raises:
        UnsupportedError: As for `save_certificate`.
    """
    return put(path, pack_step(trace, variables, gradient, theorem=theorem))


def pack_step(
    trace: Trace,
    variables: Sequence[int],
    gradient: Sequence[torch.Tensor],
    *,
    theorem: str = "",
) -> bytes:
    """The bytes of the file that `save_step` writes.

    Raises:
        UnsupportedError: As for `save_certificate`.
    """
    tensors = named("gradient", [g.detach() for g in gradient])
    content, tensors = _plain(Verdict.UNDECIDED, theorem, trace, variables, True, tensors)
    claim = {"claim": dict(_NOTHING), "instructions": dict(NO_PROOF)}
    return pack({**content, **claim}, tensors)


def save_theorem(
    trace: Trace,
    variables: Sequence[int],
    found: Explanation,
    context: Context,
    path: str | PathLike[str],
) -> Path:
    """Write a theorem: operations, shapes, and the hypotheses that hold of them.

    Raises:
        UnsupportedError: As for `save_certificate`.
        InputError: It cannot be written.
    """
    claim = theorem_claim(found, context)
    bare = without_values(trace)
    kept = bare if follows(bare, variables, claim, context.deadline) else trace
    name = "" if found.theorem is None else found.theorem.value
    content, tensors = _plain(Verdict.UNDECIDED, name, kept, variables, True, {})
    return put(path, pack({**content, "claim": claim, "instructions": dict(NO_POINT)}, tensors))


def load(path: str | PathLike[str]) -> Stored:
    """What a file holds, its form checked and nothing of it run.

    Raises:
        InputError: The file cannot be read.
        ProofError: Something in it is out of place; says what.
    """
    return unpack_stored(read_bytes(Path(path)), str(path))


def unpack_stored(raw: bytes, name: str) -> Stored:
    """What the bytes of a file hold; `name` is what an error calls them.

    Raises:
        ProofError: Something in it is out of place; says what.
    """
    content, tensors = unpack(raw)
    content = fields(content, set(_KEYS), "the file")
    tensors = whole(tensors) if is_slim(content) else tensors
    if content["format"] != FORMAT:
        raise refuse("its format is another one")
    if type(content["version"]) is not int:
        raise refuse("its version is no number")
    if content["version"] != VERSION:
        raise UnsupportedError(
            f"{name} is of version {content['version']!r} of the format, and this clarke reads "
            f"version {VERSION}. Use the clarke that wrote it."
        )
    if text(content["verdict"]) not in Verdict.__members__:
        raise refuse("its verdict is not known")
    trace, variables = program_from_plain(content["program"], tensors)
    found = Stored(
        verdict=Verdict[content["verdict"]],
        theorem=text(content["theorem"]),
        trace=trace,
        variables=tuple(variables),
        replayed=truth(content["replayed"]),
        claim=content["claim"],
        instructions=content["instructions"],
        tensors=tensors,
    )
    again, _ = _plain(found.verdict, found.theorem, trace, variables, found.replayed, tensors)
    written = content["written_by"]
    if not isinstance(written, dict) or not all(
        isinstance(v, str) and v.isprintable() for v in written.values()
    ):
        raise refuse("written_by is no table of versions")
    again |= {"claim": content["claim"], "instructions": content["instructions"]}
    again["written_by"] = written
    if again != content:
        parts = [k for k in sorted(again) if again[k] != content[k]]
        raise refuse(f"{', '.join(parts)} has another form than clarke writes")
    return found


def load_certificate(path: str | PathLike[str], *, seconds: float | None = None) -> Certificate:
    """The proof of a file, as a certificate that can be verified as any other.

    Reading it runs operators of torch that clarke knows, on tensors of the file, and no other code.

    Args:
        path: A file that `save_certificate` or `Report.save` wrote.
        seconds: Time limit for building its program.

    Raises:
        InputError: The file cannot be read.
        ProofError: Something in it is out of place; says what.
        OutOfTimeError: The time limit ended.
    """
    stored = load(path)
    with Deadline.after(seconds) as deadline:
        try:
            return stored.certificate(deadline)
        except Defect as error:
            raise refuse(f"{path}: {error}") from error


def _plain(
    verdict: Verdict,
    theorem: str,
    trace: Trace,
    variables: Sequence[int],
    replayed: bool,  # noqa: FBT001 - never called by others
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A file's content but for the claim, and all its tensors."""
    every = dict(tensors)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": {"clarke": version("clarke"), "torch": torch.__version__},
        "verdict": verdict.name,
        "theorem": printable(theorem),
        "replayed": replayed,
        "program": program_to_plain(trace, variables, every),
        "assumed": derivatives(trace),
    }
    return content, every


def derivatives(trace: Trace) -> list[str]:
    """The operators whose derivative by torch is believed: smooth ones that are differentiated."""
    found = {op.name for op in trace.ops if op.differentiated}
    return sorted(n for n in found if classify(n) is OpClass.ANALYTIC)
