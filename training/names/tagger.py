"""The network of both languages: table look-ups of local features, then dilated convolutions over positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Convolution(nn.Module):
    """Width three over positions, as one matrix product: (windows, positions, columns) in and out."""

    def __init__(self, columns: int, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.linear = nn.Linear(3 * columns, width)

    def forward(self, state: Tensor) -> Tensor:
        reach, positions = self.dilation, state.shape[1]
        padded = nn.functional.pad(state, (0, 0, reach, reach))
        shifted = [padded[:, start : start + positions] for start in (0, reach, 2 * reach)]
        out: Tensor = self.linear(torch.cat(shifted, dim=-1))
        return out


class Tagger(nn.Module):
    """Tag scores for every position of int64 feature tables, each (windows, positions)."""

    def __init__(
        self, tables: list[tuple[int, int]], *, width: int, dilations: tuple[int, ...], tags: int, aux: int
    ) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, columns) for rows, columns in tables)
        for table in self.tables[1:]:
            nn.init.normal_(table.weight, std=0.05)
        self.first = Convolution(tables[0][1], width, 1)
        self.hashed = nn.Linear(sum(columns for _, columns in tables[1:]), width, bias=False)
        self.blocks = nn.ModuleList(Convolution(width, width, dilation) for dilation in dilations)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, tags)
        self.aux = nn.Linear(width, aux) if aux else None

    def hidden(self, features: list[Tensor], keep_hashed: Tensor | None = None) -> Tensor:
        vectors = [table(feature) for table, feature in zip(self.tables, features, strict=True)]
        hashed = torch.cat(vectors[1:], dim=-1)
        if keep_hashed is not None:
            hashed = hashed * keep_hashed
        state = torch.relu(self.first(vectors[0]) + self.hashed(hashed))
        for block in self.blocks:
            state = state + torch.relu(block(self.dropout(state)))
        return state

    def forward(self, features: list[Tensor], keep_hashed: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        state = self.hidden(features, keep_hashed)
        return self.head(state), None if self.aux is None else self.aux(state)
