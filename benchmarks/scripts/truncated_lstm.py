"""A character model trained by truncated backpropagation through time."""

import argparse

import torch
from torch import nn

TEXT = "the quick brown fox jumps over the lazy dog. pack my box with five dozen liquor jugs. " * 40


class CharModel(nn.Module):
    def __init__(self, symbols, hidden):
        super().__init__()
        self.embed = nn.Embedding(symbols, 16)
        self.lstm = nn.LSTM(16, hidden, num_layers=2, dropout=0.1)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, codes, state):
        out, state = self.lstm(self.embed(codes), state)
        return self.head(out), state


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--save")
    args = parser.parse_args()
    torch.manual_seed(0)
    letters = sorted(set(TEXT))
    codes = torch.tensor([letters.index(c) for c in TEXT])
    batch, window = 8, 20
    columns = codes[: len(codes) // batch * batch].reshape(batch, -1).t().contiguous()
    model = CharModel(len(letters), 48)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    state = None
    for step in range(args.steps):
        at = step * window % (len(columns) - window - 1)
        if at < window:
            state = None
        inputs, targets = columns[at : at + window], columns[at + 1 : at + window + 1]
        if state is not None:
            state = tuple(s.detach() for s in state)
        logits, state = model(inputs, state)
        loss = nn.functional.cross_entropy(logits.reshape(-1, len(letters)), targets.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(f"step {step} loss {loss.item():.8f}")
    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
