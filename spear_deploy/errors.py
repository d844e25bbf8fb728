"""Exceptions of the toolkit, with exit code and cause.

Every message is one sentence: where, what is, what may be, what to do.

    SpearError                 exit code 1; the command line prints the sentence and nothing else
    ├── FileError              a file is missing, empty, truncated, foreign or not writable
    ├── GraphError             a network contradicts itself (shapes, cycles, NaN, names)
    ├── ProfileError           a hardware profile is unknown, or holds an impossible fact
    ├── UnsupportedError       a network has no exact counterpart on the target
    │   └── ChipError          exit code 3: the chip lacks what the network needs, or its integers are not built here
    ├── DataError              data does not match the network (shape, labels, split)
    ├── BudgetError            a budget cannot be reached; carries the smallest reachable value
    ├── QuantizationError      a parameter does not fit the integer format of the chip
    ├── BackendError           the Lava worker failed; carries the cause
    ├── WorkerError            workers die again and again, a cluster is not there, or a machine has other versions
    └── MissingPackageError    an optional package is not installed; names the extra that installs it

An exceeded hardware budget is *not* an error: it is a row of a `BudgetReport`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What an error says, in its parts: an error that is raised with it has the sentence that it makes.

    Attributes:
        layer: the layer that is refused; empty where it is no single one.
        place: words in front of the sentence where the layer alone does not say where.
        what: what is there.
        why: what there may be instead; empty where `what` says it.
        remedy: what to do.
        others: the same of further layers, which the sentence leaves out.

    >>> print(Refusal(layer="fc", what="IF does not leak", why="Xylo's membranes do", remedy="use LIF"))
    layer 'fc': IF does not leak, Xylo's membranes do; use LIF
    """

    layer: str = ""
    place: str = ""
    what: str
    why: str = ""
    remedy: str
    others: tuple[Refusal, ...] = ()

    @property
    def where(self) -> str:
        """The words in front of the sentence."""
        return self.place or f"layer '{self.layer}'"

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.where}: {self.what}{f', {self.why}' if self.why else ''}; {self.remedy}"


class SpearError(Exception):
    """Base of all errors a caller can act on. Characters of a file that are not printable are shown as their escapes.

    It is raised with a sentence, or with the parts of one.
    """

    exit_code = 1

    @property
    def refusal(self) -> Refusal | None:
        """The parts of the sentence, where the error was raised with them."""
        parts = self.args[0] if self.args else None
        return parts if isinstance(parts, Refusal) else None

    def __str__(self) -> str:
        """Return the sentence as a terminal may show it.

        >>> print(SpearError("layer 'a\\x1b[2J' is missing"))
        layer 'a\\x1b[2J' is missing
        """
        return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in super().__str__())


class FileError(SpearError):
    """A file is missing, empty, truncated, foreign or not writable."""


class GraphError(SpearError):
    """A network contradicts itself."""


class ProfileError(SpearError):
    """A hardware profile is unknown, or holds an impossible fact."""


class UnsupportedError(SpearError):
    """A network, or a part of it, has no exact counterpart on the target: a chip, a file format or the importer."""


class ChipError(UnsupportedError):
    """A chip lacks what the network needs, or its integers are not built here.

    Attributes:
        adapting: words of the command that replaces what the chip lacks, which ends the sentence; empty where there is none. The
            command line puts its own network, chip and data in place of NET and DATA.
    """

    exit_code = 3

    def __init__(self, message: str | Refusal, *, adapting: str = "") -> None:
        super().__init__(message)
        self.adapting = adapting

    def __str__(self) -> str:
        """Return the sentence, with the command.

        >>> print(ChipError("layer 'fc': LIF leaks; use IF", adapting="NET --chip speck2f --data DATA"))
        layer 'fc': LIF leaks; use IF; or let `spear-deploy adapt NET --chip speck2f --data DATA --out adapted` replace what the \
chip lacks
        """
        command = f"`spear-deploy adapt {self.adapting} --out adapted`"
        return super().__str__() + (f"; or let {command} replace what the chip lacks" if self.adapting else "")


class DataError(SpearError):
    """Data does not match the network."""


class BudgetError(SpearError):
    """A budget cannot be reached.

    Attributes:
        min_value: the smallest value that can be reached, in the unit of the budget, or None.
    """

    def __init__(self, message: str, *, min_value: float | None = None) -> None:
        super().__init__(message)
        self.min_value = min_value


class QuantizationError(SpearError):
    """A parameter does not fit the integer format of the chip."""


class BackendError(SpearError):
    """The Lava worker failed.

    Attributes:
        cause: one of "timeout", "died", "exception", "interrupted", "refused".
    """

    def __init__(self, message: str, *, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class WorkerError(SpearError):
    """Workers die again and again, a cluster is not there, or a machine has other versions."""


class MissingPackageError(SpearError, ImportError):
    """An optional package is not installed."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest known word, or an empty string; it ends a sentence.

    >>> did_you_mean("weigth_bits", ["weight_bits", "cores"])
    "; did you mean 'weight_bits'?"
    """
    written = {name.lower(): name for name in known}
    close = get_close_matches(str(word).lower(), list(written), n=1)
    return f"; did you mean '{written[close[0]]}'?" if close else ""


def summarize_error(error: BaseException) -> str:
    """Return the class of an error and the first line of its message, if it has one.

    >>> summarize_error(ValueError("no such axis\\nin the array")), summarize_error(KeyError())
    ('ValueError: no such axis', 'KeyError')
    """
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
