"""A small network whose forward a test gives."""

import norse.torch as norse
import torch
from torch import nn


class Schedule:
    present = 6


class Net(nn.Module):
    """A layer and a cell, whose forward a test gives; `present` and `gains` belong to a schedule over steps."""

    def __init__(self, forward, gains=(1.0,) * 6 + (2.0,) * 60):
        super().__init__()
        torch.manual_seed(0)
        parameters = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.4))
        self.fc, self.cell = nn.Linear(12, 20), norse.LIFBoxCell(parameters)
        with torch.no_grad():
            self.fc.weight.mul_(4)
        self.gains, self.present, self.schedule, self.layers = gains, 6.0, Schedule(), [self.fc]
        self.forward = forward.__get__(self)

    def loop(self, x, gain=2):
        state, outputs = None, []
        for t in range(x.shape[0]):
            z, state = self.cell(self.fc(x[t] * gain if t >= self.present else x[t]), state)
            outputs.append(z)
        return outputs

    def yield_steps(self, x):
        state = None
        for t, value in enumerate(x):
            z, state = self.cell(self.fc(value * 2 if t >= 6 else value), state)
            yield z

    def run_step(self, x, t):
        z, self.state = self.cell(self.fc(self.change(x, t)), self.state)
        return z

    def take(self, value):
        z, self.state = self.cell(self.fc(value), self.state)
        return z

    def take_all(self, x):
        self.state = None
        for t in range(len(x)):
            yield self.take(x[t])

    def change(self, x, t):
        return x[t] * 2 if t >= 6 else x[t]
