"""Who takes part in an encrypted computation, who holds the key, and who could read what."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mibao.errors import InputError
from mibao.types import ComputeMode

MAX_NAME_CHARACTERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The parties by name. One party may take two roles; a role left out is an error, never a default."""

    data_owner: str | None = None
    model_owner: str | None = None
    compute_host: str | None = None

    def __post_init__(self) -> None:
        """Refuse undeclared roles.

        Raises:
            InputError: a role has no name, or a name is longer than 64 characters or not printable.
        """
        for field in fields(self):
            name = getattr(self, field.name)
            if not name:
                raise InputError(
                    f"roles: {field.name} is not declared; name all of data_owner, model_owner, compute_host"
                )
            if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
                raise InputError(f"roles: expected {field.name} as at most {MAX_NAME_CHARACTERS} printable characters")


def check_roles(mode: ComputeMode, roles: Roles) -> None:
    """Refuse a casting of roles under which ``mode`` would protect nothing.

    Raises:
        InputError: the compute host owns what the mode encrypts.
    """
    hidden_from_host = {
        ComputeMode.ENCRYPTED_DATA: {roles.data_owner},
        ComputeMode.ENCRYPTED_WEIGHTS: {roles.model_owner},
        ComputeMode.ENCRYPTED_BOTH: {roles.data_owner, roles.model_owner},
    }[mode]
    if roles.compute_host in hidden_from_host:
        raise InputError(f"roles: in {mode.value} the compute host owns what is to be hidden from it")


def has_two_owners(mode: ComputeMode, roles: Roles) -> bool:
    """Whether weights reach the host from who has no key: encrypted under the data owner's public one."""
    return mode is ComputeMode.ENCRYPTED_BOTH and roles.data_owner != roles.model_owner


def key_holder(mode: ComputeMode, roles: Roles) -> str:
    """The party that holds ``client.key`` and alone can decrypt."""
    holder = roles.model_owner if mode is ComputeMode.ENCRYPTED_WEIGHTS else roles.data_owner
    return str(holder)


def who_could_read(mode: ComputeMode, roles: Roles) -> list[str]:
    """One line a role: what that party could read, and whether it holds the key; and one more of what two could read
    together, where encrypted weights have another owner than the key.

    Answers tell about what the key holder is not sent: a linear model's weights follow from enough of its answers.
    """
    knows = _knowledge(mode, roles)
    holder = key_holder(mode, roles)
    lines = []
    for role, name in (
        ("data owner", str(roles.data_owner)),
        ("model owner", str(roles.model_owner)),
        ("compute host", str(roles.compute_host)),
    ):
        hidden = [thing for thing in _THINGS if thing not in knows[name]]
        parts = [f"{role} ({name}) could read: {', '.join(knows[name]) or 'ciphertexts only'}"]
        if name == holder:
            parts += [f"is not sent the {' and '.join(hidden)}, but answers tell about them"] if hidden else []
            parts += ["holds the secret key"]
        else:
            parts += [f"never {' or '.join(hidden)}"] if hidden else []
            parts += ["has no key"]
        lines.append("; ".join(parts))
    if has_two_owners(mode, roles):
        lines.append(
            f"the weights are hidden from {roles.data_owner} only while {roles.compute_host} and {roles.data_owner} do "
            f"not collude: the one has them encrypted, the other holds the key"
        )
    return lines


_THINGS = ("records", "weights", "answers")


def _knowledge(mode: ComputeMode, roles: Roles) -> dict[str, list[str]]:
    """What each party holds in clear, in a fixed order."""
    held: dict[str, set[str]] = {str(getattr(roles, field.name)): set() for field in fields(roles)}
    held[str(roles.data_owner)].add("records")
    held[str(roles.model_owner)].add("weights")
    held[key_holder(mode, roles)].add("answers")
    if mode is ComputeMode.ENCRYPTED_DATA:
        held[str(roles.compute_host)].add("weights")
    if mode is ComputeMode.ENCRYPTED_WEIGHTS:
        held[str(roles.compute_host)].add("records")
    return {name: [thing for thing in _THINGS if thing in things] for name, things in held.items()}
