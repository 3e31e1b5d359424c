"""One update of all networks, as a function of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.objectives.common import LossModule
from torchrl.objectives.utils import TargetNetUpdater

from torchrl_gtp.training.finite import check_what_is_read
from torchrl_gtp.training.schedules import Schedule

__all__ = ["Update"]


class Update:
    """One update: schedules, losses, gradients, optimiser and moving averages.

    It is a plain function of a batch: call it, ``torch.compile`` it, or wrap it as
    ``CudaGraphModule(update, in_keys=[], out_keys=[])``. All that changes from one update to the
    next is read from tensors, so that the three do the same. They draw other random numbers,
    though; batches with the loss's ``draw_noise`` give the same numbers in all three.

    Args:
        loss_module (LossModule): the loss; all entries of its output that begin with ``loss_`` are
            summed.
        optimizer (torch.optim.Optimizer): see :func:`~torchrl_gtp.training.make_optimizer`.
        target_update (TargetNetUpdater, optional): moves the targets after each step;
            :class:`~torchrl_gtp.TargetUpdate` where the update is captured. Defaults to ``None``.

    Keyword Args:
        num_updates (int): updates of the whole training; the progress of update k is
            ``k / num_updates``.
        schedules (mapping of str to Schedule, optional): what follows the progress: names of
            schedulable buffers of the loss (``"eta"``) or of a loss inside it
            (``"critic.conservative_weight"``) with their values, and ``"lr"`` with the factor on
            the initial rates of the optimiser, or ``"lr.actor_network"`` with that of one network,
            named as in :func:`~torchrl_gtp.training.make_optimizer`. A loss with a buffer
            ``progress`` always has it set. Defaults to none.
        model (callable, optional): computes the losses instead of ``loss_module``, of which it is
            a compiled or data-parallel form. Defaults to ``None``.
        grad_clip (float or mapping of str to float, optional): largest gradient norm of each
            parameter group, of which those of one name count as one, or a norm for each of some
            networks, by such names; the others are not clipped then. Defaults to ``None``: no
            clipping.
        data (TensorDictBase, optional): a whole dataset on the loss's device. Then a batch holds an
            entry ``index`` [B] of rows to take, or is empty, and ``batch_size`` rows are drawn
            inside the update. What the loss reads of it must be finite, which is checked once.
            Defaults to ``None``: a batch holds the transitions themselves, which nothing checks;
            see :func:`~torchrl_gtp.training.check_finite`.
        batch_size (int, optional): the number of rows to draw from ``data``. Defaults to ``None``.

    Raises:
        ValueError: for a number out of range, a schedule of something that does not exist, a
            learning rate that is no tensor where it has a schedule, or ``data`` that are not
            finite.

    Examples:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl_gtp import GTPLoss, TargetUpdate, make_gtp_actor
        >>> from torchrl_gtp.training import cosine, make_optimizer
        >>> actor = make_gtp_actor(observation_dim=4, action_spec=Bounded(-1, 1, (2,)))
        >>> loss = GTPLoss(actor)
        >>> update = Update(
        ...     loss,
        ...     make_optimizer(loss, lr=1e-3),
        ...     TargetUpdate(loss, 0.005),
        ...     num_updates=1000,
        ...     schedules={"lr": cosine(1.0)},
        ... )
        >>> batch = {"observation": torch.randn(8, 4), "action": torch.zeros(8, 2)}
        >>> losses = update(TensorDict(batch, batch_size=[8]))
        >>> update.step
        tensor(1)
    """

    def __init__(
        self,
        loss_module: LossModule,
        optimizer: torch.optim.Optimizer,
        target_update: TargetNetUpdater | None = None,
        *,
        num_updates: int,
        schedules: Mapping[str, Schedule] | None = None,
        model: Callable[[TensorDictBase], TensorDictBase] | None = None,
        grad_clip: float | Mapping[str, float] | None = None,
        data: TensorDictBase | None = None,
        batch_size: int | None = None,
    ) -> None:
        for name, value in (("num_updates", num_updates), ("batch_size", batch_size)):
            if value is not None and not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if (data is None) != (batch_size is None):
            raise ValueError("data and batch_size belong together: give both or neither.")
        if data is not None and (data.ndim != 1 or not len(data)):
            raise ValueError(
                f"data must have one batch dimension and at least one row, got {data.batch_size}."
            )
        if data is not None:
            check_what_is_read(data, loss_module)
        self.loss_module = loss_module
        self.model = loss_module if model is None else model
        self.optimizer = optimizer
        self.target_update = target_update
        self.num_updates = num_updates
        self.grad_clip = grad_clip
        self.data = data
        self.batch_size = batch_size
        self._grad_clips = _by_group("grad_clip", grad_clip, optimizer)
        for clip in self._grad_clips:
            if clip is not None and not clip > 0:
                raise ValueError(f"grad_clip must be positive, or None; got {grad_clip}.")
        self._schedules = dict(schedules or {})
        self._lr_schedules = self._pop_lr_schedules()
        self._buffers = {
            f"{path}.{name}" if path else name: module
            for path, module in loss_module.named_modules()
            if isinstance(module, LossModule)
            for name in module._schedulable_buffers
        }
        known = self._buffers.keys() - {"progress"}
        unknown = sorted(self._schedules.keys() - known)
        if unknown:
            raise ValueError(
                f"schedules names {unknown}, but {type(loss_module).__name__} and its optimiser "
                f"have {sorted({'lr', *known})}, and 'lr.' with the name of a network."
            )
        device = next(loss_module.parameters()).device
        self.step = torch.zeros((), dtype=torch.int64, device=device)

    def _pop_lr_schedules(self) -> list[Schedule | None]:
        names = [name for name in self._schedules if name.startswith("lr.")]
        of_networks = {name.removeprefix("lr."): self._schedules.pop(name) for name in names}
        of_all = self._schedules.pop("lr", None)
        schedules = [
            of_all if schedule is None else schedule
            for schedule in _by_group("schedules", of_networks, self.optimizer)
        ]
        for group, schedule in zip(self.optimizer.param_groups, schedules, strict=True):
            if schedule is None:
                continue
            if not isinstance(group["lr"], Tensor):
                raise ValueError(
                    "A scheduled learning rate must be a tensor, got "
                    f"{group['lr']!r}: make the optimiser with make_optimizer."
                )
            group.setdefault("initial_lr", group["lr"].item())
        return schedules

    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Takes one step.

        Args:
            batch (TensorDictBase): what the loss reads, or the rows of ``data`` to take.

        Returns:
            TensorDictBase: the outputs of the loss, detached.
        """
        self._set_schedules()
        losses = self.model(self._gathered(batch))
        total = sum(value for key, value in losses.items() if key.startswith("loss_"))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self.grad_clip is not None:
            self._clip_gradients()
        self.optimizer.step()
        if self.target_update is not None:
            self.target_update.step()
        self.step.add_(1)
        return losses.detach()

    def _clip_gradients(self) -> None:
        """Clips network by network: groups of one name are parts of one network."""
        clipped: dict[object, tuple[list[Tensor], float]] = {}
        groups = zip(self.optimizer.param_groups, self._grad_clips, strict=True)
        for number, (group, clip) in enumerate(groups):
            if clip is not None:
                clipped.setdefault(group.get("name", number), ([], clip))[0].extend(group["params"])
        for parameters, clip in clipped.values():
            nn.utils.clip_grad_norm_(parameters, clip)

    @torch.no_grad()
    def _set_schedules(self) -> None:
        # Not past the end, where a linear schedule would turn negative.
        progress = (self.step / self.num_updates).clamp_max(1.0)
        if "progress" in self._buffers:
            _write(self.loss_module.progress, progress)
        for name, schedule in self._schedules.items():
            _write(getattr(self._buffers[name], name.rpartition(".")[2]), schedule(progress))
        if not any(self._lr_schedules):
            return
        groups = zip(self.optimizer.param_groups, self._lr_schedules, strict=True)
        for group, rate in groups:
            if rate is not None:
                _write(group["lr"], group["initial_lr"] * rate(progress))

    def _gathered(self, batch: TensorDictBase) -> TensorDictBase:
        if self.data is None or self.batch_size is None:
            return batch
        index = batch.get("index", default=None)
        if index is None:
            index = torch.randint(len(self.data), (self.batch_size,), device=self.step.device)
        rows = self.data[index]
        return rows.update(batch.exclude("index"))

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of all that an update changes: also that of loss and optimiser."""
        target_update = self.target_update
        return {
            "step": self.step.clone(),
            "loss_module": self.loss_module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "target_update": None if target_update is None else target_update.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes back to a state of :meth:`state_dict`; the number of updates stays.

        Not after capture in a graph: an optimiser loads into new tensors.
        """
        self.loss_module.load_state_dict(state_dict["loss_module"])
        # Optimisers share the tensors that they load, and change them in place.
        self.optimizer.load_state_dict(deepcopy(state_dict["optimizer"]))
        if self.target_update is not None:
            self.target_update.load_state_dict(state_dict["target_update"])
        self.step.copy_(state_dict["step"])


def _by_group(argument: str, value: Any, optimizer: torch.optim.Optimizer) -> list[Any]:
    """What each parameter group gets of one value for all, or of values by network."""
    groups = optimizer.param_groups
    if not isinstance(value, Mapping):
        return [value] * len(groups)
    names = [group.get("name", "") for group in groups]
    found = [name if name in value else name.rpartition(".")[2] for name in names]
    unknown = sorted(value.keys() - set(found))
    if unknown:
        raise ValueError(
            f"{argument} names the networks {unknown}, but the optimiser has {sorted(set(names))}."
        )
    return [value.get(name) for name in found]


def _write(target: Tensor, value: Tensor) -> None:
    # Through .data, because compiled by torch 2.13 a copy into a scalar of double precision on the
    # CPU is lost.
    target.data.copy_(value)
