"""The instructions of a file carried out in floats, anywhere: no derivative, no kink, no proof."""

import math

WORDS = {
    4: lambda x: 1 / x,
    5: math.exp,
    6: math.log,
    7: math.sqrt,
    8: math.tanh,
}


def carried_out(tensors, output, point):
    """The number of a cell where the variables are those of `point`."""
    cells = [*point, *tensors["constants"].tolist()]
    flat, at = tensors["code"].tolist(), 0
    while at < len(flat):
        word, _, count = flat[at : at + 3]
        read = [cells[i] for i in flat[at + 3 : at + 3 + count]]
        at += 3 + count
        if word == 0:
            cells.append(math.fsum(x * y for x, y in zip(read[::2], read[1::2], strict=True)))
        elif word == 1:
            cells.append(max(read))
        elif word == 2:
            cells.append(float((read[0] > 0) - (read[0] < 0)))
        elif word == 3:
            cells.append(read[1 + int(read[0] > 0) + int(read[0] >= 0)])
        else:
            cells.append(WORDS[word](*read))
    return cells[output]
