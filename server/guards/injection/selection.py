"""The firewall that the settings ask for: which models there are, and what is said where there are none."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from unbroken.server.config import Settings, StartupError
from unbroken.server.fair_names import FairName
from unbroken.server.guards.injection.base import Detector, DetectorFailed
from unbroken.server.guards.injection.examiner import Examiner
from unbroken.server.guards.injection.firewall import Firewall, FirewallLimits
from unbroken.server.guards.injection.linear import shipped
from unbroken.server.guards.injection.onnx import OnnxClassifier, has_runtime, packaged_model
from unbroken.server.guards.injection.policy import Mode, Policies, Policy
from unbroken.server.guards.injection.reading import Reading
from unbroken.server.guards.injection.rulebook import names_of, read_rules
from unbroken.server.guards.injection.suspicion import LEAST, Suspicion
from unbroken.server.guards.plan import DEFAULT_PLAN
from unbroken.server.metrics import Metrics
from unbroken.server.plan_tables import row_of, rows_of
from unbroken.server.setting_origins import label
from unbroken.sessions.clock import Clock

__all__ = ["TOKENS", "Surroundings", "build_firewall", "policies_of", "read_by", "rule_hints"]

TOKENS: Final = 44
"""That the local model reads of a text: its time grows with them, and it finds hardly more in 64."""

_EXTRA: Final = "pip install 'unbroken[guards]'"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a firewall is given by whoever builds it."""

    suspicion: Suspicion
    threads: Executor
    aside: Executor
    """Threads for which nobody waits."""
    heavy: Executor
    """Threads for a heavier model: others' messages don't wait for that."""
    metrics: Metrics
    clock: Clock
    fair_name: FairName = str
    packaged: Callable[[], Path | None] = packaged_model


def policies_of(settings: Settings) -> Policies:
    """Return what is done about scores, by plan."""
    tables = [rows_of(each) for each in (settings.firewall, settings.firewall_flag, settings.firewall_block)]
    modes, flags, blocks = tables
    return Policies(
        {
            plan: Policy(
                mode=_MODES[row_of(modes, plan, "on")],
                flag=float(row_of(flags, plan, "0.5")),
                block=float(row_of(blocks, plan, "0.8")),
            )
            for plan in {DEFAULT_PLAN, *modes, *flags, *blocks}
        }
    )


_MODES: Final[dict[str, Mode]] = {"off": "off", "shadow": "shadow", "on": "on"}


def build_firewall(settings: Settings, around: Surroundings) -> Firewall | None:
    """Return the firewall; None: it is off. Loads models, which takes a second: not on the event loop.

    Raises:
        StartupError: A model that the settings name can't be used.

    """
    policies = policies_of(settings)
    if policies.is_off:
        return None
    try:
        reading = _reading(settings, around.packaged)
        detectors = _detectors(settings, around)
    except DetectorFailed as exc:
        raise StartupError(f"The firewall's model can't be used. {exc}") from None
    least = min(LEAST, policies.least)
    examiner = Examiner(reading, without=frozenset(settings.firewall_rules_off), least=least)
    for hint in rule_hints(settings):
        structlog.get_logger().warning("firewall rule not known", hint=hint)
    return Firewall(
        examiner,
        policies,
        around.suspicion,
        around.threads,
        around.metrics,
        around.clock,
        aside=around.aside,
        detectors=detectors,
        limits=FirewallLimits(
            timeout=settings.firewall_timeout,
            waiting=settings.firewall_queue,
            threads=settings.firewall_threads,
            fails_closed=settings.firewall_failure == "closed",
        ),
        allowed=frozenset(settings.firewall_allow),
        fair_name=around.fair_name,
    )


def rule_hints(settings: Settings, origins: Mapping[str, str] | None = None) -> Iterator[str]:
    """Find names of rules that are off, and that no rule has: a line each, with what was meant."""
    if not settings.firewall_rules_off:
        return
    known = names_of(read_rules())
    called = label("firewall_rules_off", origins or {"firewall_rules_off": "environment"})
    for name in settings.firewall_rules_off:
        if name not in known:
            # Logs name the view, too, where it is no plain text.
            close = difflib.get_close_matches(name.partition(":")[0], sorted(known), n=1, cutoff=0.6)
            what_to_do = f"Did you mean {close[0]}?" if close else f"{_RULES} has the names."
            yield (f"{called} has {name[:64]!r}, and no rule is called so: none is off by it. {what_to_do}")


_RULES: Final = "server/guards/injection/rules.toml"


def _reading(settings: Settings, packaged: Callable[[], Path | None]) -> Reading | None:
    log = structlog.get_logger()
    if settings.firewall_model not in ("auto", "off"):
        return read_by(Path(settings.firewall_model))
    folder = packaged() if settings.firewall_model == "auto" and has_runtime() else None
    if folder is not None:
        return read_by(folder)
    hint = "as set" if settings.firewall_model == "off" else _EXTRA
    log.info("firewall has rules alone", model="none", hint=hint)
    return None


def read_by(folder: Path) -> Reading:
    """Return what reads with the local model in *folder*, and the linear one of this package.

    Raises:
        DetectorFailed: It can't be used.

    """
    classifier = OnnxClassifier(folder, tokens=TOKENS)
    linear, bands = shipped()
    return Reading(linear, classifier, bands)


def _detectors(settings: Settings, around: Surroundings) -> list[Detector]:
    detectors: list[Detector] = []
    if settings.firewall_heavy_model is not None:
        from unbroken.server.guards.injection.heavy import ModelDetector

        classifier = OnnxClassifier(settings.firewall_heavy_model, name="heavy")
        detectors.append(
            ModelDetector(
                classifier, shipped()[0], around.heavy, around.aside, waiting=settings.firewall_queue
            )
        )
    if settings.firewall_service is not None:
        from unbroken.server.guards.injection.remote import HttpDetector

        key = settings.firewall_service_key
        detectors.append(
            HttpDetector(
                settings.firewall_service,
                api=settings.firewall_service_api,
                key=None if key is None else key.get_secret_value(),
                timeout=settings.firewall_timeout,
            )
        )
    return detectors
