"""Run somebody's program as ``__main__``, the way the interpreter would."""

from __future__ import annotations

import io
import os
import runpy
import sys
import types
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from clarke.errors import InputError

_OWN_FOLDER = str(Path(__file__).parents[1]) + os.sep


@dataclass(frozen=True)
class Program:
    """A script or a module, with its arguments.

    Attributes:
        target: Path of a script, or dotted name of a module.
        arguments: What it finds in ``sys.argv[1:]``.
        is_module: Whether `target` names a module.
    """

    target: str
    arguments: tuple[str, ...] = ()
    is_module: bool = False

    @property
    def name(self) -> str:
        """A short name for folders and headings."""
        return self.target.rsplit(".", 1)[-1] if self.is_module else Path(self.target).stem

    def require(self) -> None:
        """Do nothing if there is such a script, or a module with such a first name.

        Raises:
            InputError: There is not.
        """
        if self.is_module:
            top = self.target.partition(".")[0]
            path = [str(Path.cwd()), *sys.path]
            if top not in sys.modules and PathFinder.find_spec(top, path) is None:
                raise InputError(
                    f"There is no module {top}. Is it installed, or in this directory? "
                    "A script is given by its path, without -m."
                )
        elif Path(self.target).is_dir() and not Path(self.target, "__main__.py").exists():
            raise InputError(
                f"The folder {self.target} has no __main__.py to run. Name the script in it."
            )
        elif not Path(self.target).exists():
            raise InputError(
                f"There is no file {self.target}. For a module: clarke run -m MODULE; options of "
                "clarke come before the script, those after it are the script's."
            )


@dataclass(frozen=True)
class Ending:
    """How a program ended.

    Attributes:
        status: The exit status that the interpreter would give.
        error: What it raised, if it did not end by itself or by `SystemExit`.
    """

    status: int
    error: BaseException | None = None

    @property
    def words(self) -> str:
        """In words, for the run's summary."""
        if self.error is not None:
            return f"{type(self.error).__name__}: {self.error}"
        return "finished" if self.status == 0 else f"exited with status {self.status}"


def run_program(program: Program) -> Ending:
    """Run it to its end. ``sys.argv``, ``sys.path[0]`` and ``__main__`` stay the program's.

    Raises:
        InputError: There is no such script or module.
    """
    program.require()
    sys.argv[:] = [program.target, *program.arguments]
    is_folder = Path(program.target).is_dir()
    if not sys.flags.safe_path and (program.is_module or not is_folder):
        home = Path.cwd() if program.is_module else Path(program.target).resolve().parent
        sys.path[0] = str(home)
    try:
        if program.is_module:
            runpy.run_module(program.target, run_name="__main__", alter_sys=True)
        elif is_folder:
            runpy.run_path(program.target, run_name="__main__")
        else:
            _run_script(program.target)
    except SystemExit as end:
        return Ending(_status(end.code))
    except KeyboardInterrupt as error:
        return Ending(130, error)
    except BaseException as error:  # noqa: BLE001 - whatever ends the program is handed on
        return Ending(1, error)
    return Ending(0)


def show_error(error: BaseException) -> None:
    """Print a program's traceback through its own ``sys.excepthook``, without clarke's frames."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        current = todo.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        current.__traceback__ = user_frames(current.__traceback__)
        todo += [current.__cause__, current.__context__]
    sys.excepthook(type(error), error, error.__traceback__)


def user_frames(trace: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback without frames of clarke and of runpy.

    None if nothing is left: of a syntax error the message names the line.
    """
    kept: list[types.TracebackType] = []
    current = trace
    while current is not None:
        file = current.tb_frame.f_code.co_filename
        own = file.startswith(_OWN_FOLDER) and "programs" + os.sep not in file
        if not own and file not in ("<frozen runpy>", runpy.__file__):
            kept.append(current)
        current = current.tb_next
    result: types.TracebackType | None = None
    for part in reversed(kept):
        result = types.TracebackType(result, part.tb_frame, part.tb_lasti, part.tb_lineno)
    return result


def _run_script(path: str) -> None:
    with io.open_code(str(Path(path).resolve())) as file:
        source = file.read()
    module = types.ModuleType("__main__")
    module.__dict__.update({"__file__": path, "__builtins__": __builtins__})
    sys.modules["__main__"] = module  # stays: what runs at exit may still look for it
    exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102 - to run it is the purpose


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return 1
