"""What some work takes on some devices: memory, time, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

from tianti.scale.hardware import Device
from tianti.scale.memory import Memory, memory_of
from tianti.scale.step_time import StepTime, bytes_sent, shares_of, step_time
from tianti.scale.work import Work


@dataclass(frozen=True)
class Estimate:
    """Memory and time of some work on some devices.

    Args:
        work: what.
        device: on which.
        memory: of the fullest device.
        seconds: of a step.
        sent: bytes that a device sends in a step, by what they are.
    """

    work: Work
    device: Device
    memory: Memory
    seconds: StepTime
    sent: dict[str, float]

    @property
    def fits(self) -> bool:
        """Tells whether a device holds it."""
        return self.memory.total <= self.device.memory

    @property
    def tokens_per_second(self) -> float:
        """Gives the tokens a second of all devices."""
        return self.work.settings.batch_rows * self.work.shape.context / self.seconds.total

    @property
    def mfu(self) -> float:
        """Gives the share of the peak in bfloat16; of a CPU, in the precision of training."""
        flops = self.work.shape.flops_per_token() * self.tokens_per_second
        return flops / (self.device.bf16_tflops * 1e12 * self.work.layout.devices)


def estimate(work: Work, device: Device) -> Estimate:
    """Gives what a step takes."""
    sent = bytes_sent(work, shares_of(device).each)
    seconds = step_time(work, device, sent)
    return Estimate(work, device, memory_of(work, device.kind), seconds, sent)
