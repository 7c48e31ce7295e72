"""Reads a Dockerfile into stages of instructions; refuses instructions that Waybill's does not use."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from string import Template

KNOWN = {"ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined."""

    word: str
    rest: str


@dataclass(frozen=True)
class Stage:
    """One stage: its base, which is an image or an earlier stage, and its instructions."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)


@dataclass
class Context:
    """The state that instructions leave to the next ones."""

    environment: dict[str, str]
    folder: str = "/"
    user: str = "0:0"
    entrypoint: Sequence[str] = ()

    def heir(self) -> "Context":
        """The first context of a stage that is based on this one."""
        return Context(dict(self.environment), self.folder, self.user, self.entrypoint)

    def note(self, instruction: Instruction) -> None:
        """Apply an instruction to the context."""
        if instruction.word == "ENV":
            for pair in shlex.split(instruction.rest):
                name, _, value = pair.partition("=")
                self.environment[name] = Template(value).substitute(self.environment)
        elif instruction.word == "WORKDIR":
            self.folder = instruction.rest
        elif instruction.word == "USER":
            self.user = instruction.rest
        elif instruction.word == "ENTRYPOINT":
            self.entrypoint = json.loads(instruction.rest)


def read(text: str) -> list[Stage]:
    """The stages in order; ValueError for an unsupported instruction."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(name or "image", base))
        elif word in KNOWN:
            stages[-1].instructions.append(Instruction(word, rest.strip()))
        else:
            raise ValueError(f"{word}: not an instruction that is known here")
    return stages
