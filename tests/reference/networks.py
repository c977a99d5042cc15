"""Small networks of the usual kinds, each with the shape of its input."""

from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)

    def forward(self, x):
        return self.layer(self.words((x * 3).long().abs() % 7))


PROGRAMS = {
    "perceptron": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (4, 6)),
    "pools": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3)
        ),
        (2, 1, 8, 8),
    ),
    "recurrent": (lambda: nn.RNN(6, 5, nonlinearity="relu"), (3, 2, 6)),
    "attention": (Attention, (2, 5)),
}
