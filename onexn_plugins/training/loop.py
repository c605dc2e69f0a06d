"""The loop: Lightning Fabric brings devices, precision and processes, torch the rest."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onexn_plugins.errors import MissingDependencyError, OneXNError
from onexn_plugins.training.checks import FIRST, check_run, described
from onexn_plugins.training.data.images import IGNORED, Batch, ImageData, Requests, loader
from onexn_plugins.training.evaluation import Accuracy, evaluate, to_device
from onexn_plugins.training.log import Log
from onexn_plugins.training.methods import Method
from onexn_plugins.training.recipe import Recipe, check_same
from onexn_plugins.training.schedules import make_optimizer, make_scheduler
from onexn_plugins.training.state import (
    check_network,
    load_model_state,
    load_state,
    random_state,
    save_state,
    set_random_state,
    shapes,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STATE = "last.ckpt"
LOG_STEPS = 50  # looking at losses means waiting for the accelerator
SAVE_SECONDS = 300.0


@dataclass(frozen=True)
class Trained:
    """A run that is done.

    Attributes:
        model: trained, in eval mode, masks still on.
        history: one entry per epoch: its number, training loss, held-out accuracy, learning rate and seconds.
        accuracy: held-out, after the last epoch.
    """

    model: nn.Module
    history: list[dict[str, Any]]
    accuracy: Accuracy


@dataclass
class _Progress:
    """How far a run is; the plain part of its state."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0  # summed over the epoch's batches
    unreadable: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def start_fabric(precision: str = "32-true", device: str = "auto") -> Fabric:
    """Fabric on this process's device, or as one of the processes that torchrun started.

    Args:
        precision: as in Recipe.
        device: "auto" uses an accelerator if there is one; "cpu", "cuda" or "mps" insist.

    Raises:
        OneXNError: there is no such device.
    """
    try:
        from lightning_fabric import Fabric
    except ModuleNotFoundError as error:
        raise MissingDependencyError("lightning-fabric", "train") from error
    ranks, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    try:
        fabric = Fabric(accelerator=device, devices=local, num_nodes=max(1, ranks // local),
                        strategy="ddp" if ranks > 1 else "auto", precision=precision)  # type: ignore[arg-type]
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise OneXNError("device", f"{device} with {local} processes cannot be used: {error}",
                         "Leave the device at auto, and start no more processes than there are devices") from error
    return fabric


def train(model: nn.Module, data: ImageData, recipe: Recipe, folder: str | os.PathLike[str], *,
          method: Method | None = None, fabric: Fabric | None = None, workers: int = 0,
          save_seconds: float = SAVE_SECONDS, log_steps: int = LOG_STEPS, tensorboard: bool = True,
          progress: Callable[[str], None] = lambda note: None) -> Trained:
    """Train the model and keep the run's state and log in `folder`; the same call goes on where a run was stopped.

    Args:
        model: with the weights to start from, also where a run goes on; changed in place.
        data: to train on, and to judge by after every epoch.
        recipe: how.
        folder: of this run alone: log.jsonl and last.ckpt; made if it is not there.
        method: what is done beside plain training, such as `Blocks`.
        fabric: from `start_fabric`; default: made here.
        workers: processes that read images.
        save_seconds: the state is saved at the end of every epoch, and in between after so long.
        log_steps: losses are looked at and logged, and the time to save is, after so many steps.
        tensorboard: write TensorBoard's files too, where it is installed.
        progress: called with a short note as training goes on.

    Raises:
        OneXNError: the data do not fit the model, the folder holds another run, the loss is not finite (the last good
            state stays), or the folder cannot be written.
    """
    fabric = fabric or start_fabric(recipe.precision)
    run = _Run(model, data, recipe, Path(folder), method or Method(), fabric, workers, save_seconds, log_steps,
               tensorboard)
    try:
        while run.at.epoch < recipe.epochs:
            run.train_epoch(progress)
            run.finish_epoch(progress)
    finally:
        run.log.close()
    last = run.at.history[-1]
    accuracy = Accuracy(**{name: last[name] for name in ("top1", "top5")}, loss=last["held_out_loss"],
                        images=last["images"], unreadable=last["held_out_unreadable"])
    return Trained(run.bare.eval(), run.at.history, accuracy)


class _Run:
    """One run: what is trained, with what, and how far it is."""

    def __init__(self, model: nn.Module, data: ImageData, recipe: Recipe, folder: Path, method: Method, fabric: Fabric,
                 workers: int, save_seconds: float, log_steps: int, tensorboard: bool) -> None:
        self.data, self.recipe, self.folder, self.method, self.fabric = data, recipe, folder, method, fabric
        self.workers, self.save_seconds, self.log_steps = workers, save_seconds, log_steps
        check_run(model, data, recipe, folder, fabric.world_size, workers)
        self.network, self.settings = shapes(model.state_dict()), {**method.settings(), **described(data)}
        state = self._saved_state()
        torch.manual_seed(recipe.seed + fabric.global_rank)
        example = data.held_out[FIRST].images
        self.bare = method.prepare(model, example).train()
        if recipe.channels_last:
            self.bare.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.epoch_steps = len(Requests(len(data.training), recipe.batch_size, seed=0))
        self.at = _Progress()
        self.model, self.optimizer = fabric.setup(self.bare, make_optimizer(self.bare, recipe))
        self.scheduler = make_scheduler(self.optimizer, recipe, self.epoch_steps)
        if state is not None:
            self._resume(state)
        self._saved, self._unreadable = time.monotonic(), list[str]()
        self.log = Log(folder, self.step, tensorboard) if fabric.global_rank == 0 else _Silent()

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.at.epoch * self.epoch_steps + self.at.batch

    def train_epoch(self, progress: Callable[[str], None]) -> None:
        """What is left of the current epoch."""
        rank, ranks, started = self.fabric.global_rank, self.fabric.world_size, time.monotonic()
        requests = Requests(len(self.data.training), self.recipe.batch_size, epoch=self.at.epoch,
                            seed=self.recipe.seed, start=self.at.batch, rank=rank, ranks=ranks)
        losses: list[Tensor] = []
        for batch in loader(self.data.training, requests, workers=self.workers, pin=self.fabric.device.type == "cuda"):
            losses.append(self._step(batch))
            self.at.batch += 1
            if self.at.batch % self.log_steps and self.at.batch < self.epoch_steps:
                continue
            self._account(losses, progress)
            losses = []
            self.at.seconds += time.monotonic() - started
            started = time.monotonic()
            if self.at.batch < self.epoch_steps and self._agree(started - self._saved > self.save_seconds):
                self.save()

    def finish_epoch(self, progress: Callable[[str], None]) -> None:
        """Judge, note, save."""
        self._check_finite()
        accuracy = evaluate(self.fabric, self.model, self.data.held_out, self.recipe.eval_batch_size,
                            workers=self.workers, channels_last=self.recipe.channels_last, progress=progress)
        self.at.history.append({
            "epoch": self.at.epoch + 1, "loss": self.at.loss / self.epoch_steps, "top1": accuracy.top1,
            "top5": accuracy.top5, "held_out_loss": accuracy.loss, "images": accuracy.images,
            "lr": self.scheduler.get_last_lr()[0], "unreadable": self.at.unreadable,
            "held_out_unreadable": accuracy.unreadable, "seconds": round(self.at.seconds, 2)})
        self.at = _Progress(self.at.epoch + 1, history=self.at.history)
        self.log.write("epoch", self.step, **self.at.history[-1])
        self.save()

    def save(self) -> None:
        """The state, by the first process.

        Raises:
            OneXNError: a weight is not finite; the last good state stays.
        """
        self._check_finite()
        streams = _gathered(self.fabric, random_state())
        if self.fabric.global_rank == 0:
            save_state(self.folder / STATE, {
                "recipe": asdict(self.recipe), "settings": self.settings, "network": self.network,
                "progress": asdict(self.at), "model": self.bare.state_dict(),
                "optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict(),
                "method": self.method.state_dict(), "random": streams})
        self._saved = time.monotonic()

    def _step(self, batch: Batch) -> Tensor:
        self.method.before_step(self.step, self.recipe.epochs * self.epoch_steps)
        images = to_device(batch.images, self.fabric.device, self.recipe.channels_last)
        outputs = self.model(images)
        if isinstance(outputs, tuple):  # googlenet and inception_v3, in training: classes first, then auxiliary heads
            outputs = outputs[0]
        loss = F.cross_entropy(outputs, batch.labels.to(self.fabric.device), ignore_index=IGNORED,
                               label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad()
        self.fabric.backward(self.method.loss(images, outputs, loss))
        self.method.before_update()
        self.optimizer.step()
        self.scheduler.step()
        self._unreadable += batch.unreadable
        return loss.detach()

    def _account(self, losses: list[Tensor], progress: Callable[[str], None]) -> None:
        """Look at the losses since the last look."""
        values = cast(Tensor, self.fabric.all_reduce(torch.stack(losses))).tolist()
        bad = next((place for place, value in enumerate(values) if not abs(value) < float("inf")), None)
        if bad is not None:
            raise self._diverged(f"the loss is {values[bad]}", self.step - len(values) + bad + 1)
        for value in values:  # one by one: the sum must not depend on when it was looked at
            self.at.loss += value
        if unreadable := self._joint(len(self._unreadable)):
            self.at.unreadable += unreadable
            self.log.write("unreadable", self.step, count=self.at.unreadable, files=self._unreadable[:10])
            self._unreadable = []
        mean = sum(values) / len(values)
        self.log.write("steps", self.step, loss=mean, lr=self.scheduler.get_last_lr()[0])
        progress(f"epoch {self.at.epoch + 1} of {self.recipe.epochs}, batch {self.at.batch} of {self.epoch_steps}, "
                 f"loss {mean:.3f}")

    def _check_finite(self) -> None:
        for name, tensor in self.bare.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise self._diverged(f"{name} is not finite", self.step)

    def _diverged(self, what: str, step: int) -> OneXNError:
        good = self.folder / STATE
        return OneXNError(f"step {step} (epoch {(step - 1) // self.epoch_steps + 1})", what,
                          f"Lower the learning rate or warm up longer; {good} holds the last good state"
                          if good.is_file() else "Lower the learning rate or warm up longer; nothing was saved yet")

    def _saved_state(self) -> dict[str, Any] | None:
        """What the folder holds, once it is known to be of this very run; the model is as it was until then."""
        path = self.folder / STATE
        if self.fabric.global_rank == 0:
            for unfinished in self.folder.glob(f".{STATE}.*"):  # of a process that was killed while it saved
                shutil.rmtree(unfinished, ignore_errors=True)
        if not path.is_file():
            return None
        state = load_state(path)
        self.recipe.check_resumable(state["recipe"], str(path))
        check_same(state["settings"], self.settings, str(path))
        check_network(self.network, state["network"], str(path))
        return state

    def _resume(self, state: dict[str, Any]) -> None:
        load_model_state(self.bare, state["model"], str(self.folder / STATE))
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.method.load_state_dict(state["method"])
        self.at = _Progress(**state["progress"])
        if len(state["random"]) == self.fabric.world_size:
            set_random_state(state["random"][self.fabric.global_rank])

    def _joint(self, count: int) -> int:
        """Summed over all processes."""
        return int(cast(Tensor, self.fabric.all_reduce(torch.tensor(float(count)), reduce_op="sum")))

    def _agree(self, due: bool) -> bool:
        """Saving is a joint act: the first process's clock decides."""
        return bool(self.fabric.broadcast(due)) if self.fabric.world_size > 1 else due


class _Silent:
    """The log of processes other than the first."""

    def write(self, event: str, step: int, **values: Any) -> None:
        pass

    def close(self) -> None:
        pass


def _gathered(fabric: Fabric, value: Any) -> list[Any]:
    if fabric.world_size == 1:
        return [value]
    gathered: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, value)
    return gathered
