from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perpetune.model.trees.token_tree import build_tree, groups_within, is_visible


def test_equal_beginnings_are_one_path() -> None:
    tree = build_tree([(1, 2, 3), (1, 2, 4), (5,)])

    assert tree.tokens.tolist() == [1, 2, 3, 4, 5]
    assert tree.depths.tolist() == [0, 1, 2, 2, 0]
    assert tree.ends.tolist() == [4, 4, 3, 4, 5]
    assert tree.paths == ((0, 1, 2), (0, 1, 3), (4,))
    assert is_visible(tree, np.array([3]), np.arange(5)).tolist() == [[True, True, False, True, False]]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=12))
def test_each_sequence_attends_only_to_itself(sequences: list[list[int]]) -> None:
    tree = build_tree(sequences)
    positions = np.arange(len(tree))
    visible = is_visible(tree, positions, positions)
    for sequence, path in zip(sequences, tree.paths, strict=True):
        assert tree.tokens[list(path)].tolist() == sequence
        assert tree.depths[list(path)].tolist() == list(range(len(sequence)))
        for depth, position in enumerate(path):
            assert np.nonzero(visible[position])[0].tolist() == list(path[: depth + 1])
    assert len(tree) == len({tuple(row[: n + 1]) for row in sequences for n in range(len(row))})


def test_runs_hold_at_most_the_limit_and_every_sequence_once() -> None:
    sequences = [[1, 2, 3], [1, 2, 4], [7, 8, 9, 10], [1, 2, 3, 4, 5, 6]]

    runs = groups_within(sequences, 5)

    assert [index for run in runs for index in run] == [0, 1, 2, 3]
    assert all(len(run) == 1 or len(build_tree([sequences[index] for index in run])) <= 5 for run in runs)
