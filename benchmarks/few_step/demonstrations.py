"""Actions given states, from a Minari dataset; a part of the episodes is held out."""

from __future__ import annotations

import torch
from minari import list_local_datasets
from torch import Tensor

from benchmarks.few_step.data_set import DataSet, Pairs, Reference
from torchrl_gtp.data import load_minari

__all__ = ["MinariSet"]

_HELD_OUT_SHARE = 0.2
_GROUP_SIZE = 25


class MinariSet(DataSet):
    """Actions given states.

    Samples are compared with data conditionally: each group holds the states nearest to a held-out
    state, in units of the standard deviation of each dimension. Half of them give the states, the
    other half the actions.

    Args:
        dataset_id: id of a dataset in Minari's folder (``MINARI_DATASETS_PATH``).

    Raises:
        FileNotFoundError: if it is not there. It is not downloaded.
        ValueError: if a fifth of its episodes has fewer states than a group takes.
    """

    has_one_action = True

    def __init__(self, dataset_id: str) -> None:
        if dataset_id not in list_local_datasets():
            raise FileNotFoundError(
                f"There is no dataset {dataset_id} in Minari's folder. Make or download it, or set "
                "MINARI_DATASETS_PATH to where it is."
            )
        self.name = dataset_id
        data = load_minari(dataset_id, normalize_observations=True, download=False)[:]
        state, action, episode = data["observation"], data["action"], data["episode"]
        # Every fifth episode: the order of the episodes may mean something.
        numbers = torch.unique_consecutive(episode, return_inverse=True)[1]
        held_out = numbers % round(1 / _HELD_OUT_SHARE) == 0
        if held_out.sum() < 2 * _GROUP_SIZE:
            raise ValueError(
                f"{dataset_id} has {int(held_out.sum())} held-out states, but a group takes "
                f"{2 * _GROUP_SIZE}. Use a dataset with more steps."
            )
        self._training = Pairs(state[~held_out], action[~held_out])
        self._held_out = Pairs(state[held_out], action[held_out])
        self.condition_dim, self.action_dim = state.shape[-1], action.shape[-1]
        self.sigma_data = self._training.action.std().item()

    def draw(self, num_samples: int) -> Pairs:
        """Draws training data, with replacement."""
        return _rows(self._training, torch.randint(len(self._training.action), (num_samples,)))

    def reference(self, num_samples: int) -> Reference:
        """Draws groups of 25 pairs, as many as make up ``num_samples``."""
        num_groups = max(1, num_samples // _GROUP_SIZE)
        state = self._held_out.condition
        centres = state[torch.randint(len(state), (num_groups,))]
        nearest = torch.cdist(centres, state).topk(2 * _GROUP_SIZE, largest=False).indices
        # A random split: sorted by distance one half would be nearer than the other.
        nearest = nearest[:, torch.randperm(2 * _GROUP_SIZE)]
        first, second = nearest.split(_GROUP_SIZE, dim=1)
        return Reference(
            _rows(self._held_out, first.flatten()),
            _rows(self._held_out, second.flatten()),
            torch.arange(num_groups).repeat_interleave(_GROUP_SIZE),
        )


def _rows(pairs: Pairs, index: Tensor) -> Pairs:
    return Pairs(pairs.condition[index], pairs.action[index])
