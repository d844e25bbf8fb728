"""ODIN's neuron against its own Verilog in Icarus, where both are at hand.

`SPEAR_ODIN_RTL` is the folder of ODIN's `lif_neuron_state.v` (ChFrenkel/ODIN: src/LIF_neuron_blocks), `iverilog` and `vvp` are on
the path.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from spear_deploy.network import Dense, Layer, OdinLIF
from spear_deploy.network.graph import chain
from spear_deploy.simulator import simulate

SOURCE = Path(os.environ.get("SPEAR_ODIN_RTL", "")) / "lif_neuron_state.v"
BENCH = """module bench;
  reg [6:0] leak; reg [7:0] threshold, state; reg is_leak, is_inh, is_exc; reg [2:0] weight;
  wire [7:0] next; wire [6:0] sent;
  integer events, found, n, kind, a, b, c;
  lif_neuron_state neuron(leak, 1'b1, threshold, state, is_leak, is_inh, is_exc, weight, next, sent);
  initial begin
    events = $fopen("events.txt", "r"); found = $fopen("found.txt", "w");
    while (!$feof(events)) begin
      n = $fscanf(events, "%d %d %d %d\\n", kind, a, b, c);
      if (kind == 3) state = 0;
      else begin
        leak = a; threshold = b; weight = c; is_exc = kind == 0; is_inh = kind == 1; is_leak = kind == 2;
        #1 $fdisplay(found, "%0d %0d", sent[6], next); state = next; #1;
      end
    end
    $finish;
  end
endmodule
"""


@pytest.mark.slow
@pytest.mark.skipif(not SOURCE.is_file() or shutil.which("iverilog") is None, reason="SPEAR_ODIN_RTL or iverilog is not there")
def test_spikes_and_potentials_equal_the_verilog_event_by_event(tmp_path):
    rng = np.random.default_rng(5)
    events, wanted = [], []
    for number in range(300):
        inputs, steps = int(rng.integers(2, 20)), 40
        weight = rng.integers(0, 8, inputs) * rng.choice([-1, 1], inputs)
        threshold, leak = int(rng.integers(1, 256 if number % 2 else 30)), int(rng.integers(0, 5))
        x = rng.integers(0, 4, (steps, 1, inputs))
        layer = Layer(name="a", synapse=Dense(weight=weight[None]), neuron=OdinLIF(v_threshold=threshold, leak=leak))
        run = simulate(chain([layer], input_shape=(inputs,)), x, record=("v",))
        events.append("3 0 0 0")
        for step in range(steps):
            sent = [
                f"{int(w < 0)} {leak} {threshold} {abs(w)}"
                for w, times in zip(weight, x[step, 0], strict=True)
                for _ in range(times)
            ]
            events += [*sent, f"2 {leak} {threshold} 0"]
            wanted.append((len(sent) + 1, int(run.output[step, 0, 0]), int(run.v["a"][step, 0, 0])))
    (tmp_path / "bench.v").write_text(BENCH, encoding="utf-8")
    (tmp_path / "events.txt").write_text("\n".join(events) + "\n", encoding="utf-8")
    subprocess.run(["iverilog", "-g2005", "-o", "bench", "bench.v", str(SOURCE.resolve())], cwd=tmp_path, check=True, timeout=60)
    subprocess.run(["vvp", "bench"], cwd=tmp_path, check=True, timeout=300)
    rows = [tuple(map(int, line.split())) for line in (tmp_path / "found.txt").read_text(encoding="utf-8").splitlines()]
    place = 0
    for size, spikes, v in wanted:
        part = rows[place : place + size]
        place += size
        assert (sum(sent for sent, _ in part), part[-1][1]) == (spikes, v)
    assert place == len(rows) > 100_000 and sum(spikes for _, spikes, _ in wanted) > 1000
