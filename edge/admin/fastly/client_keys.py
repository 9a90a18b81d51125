"""Keys to which Fastly's CLI seals secrets on their way here, and the key that signs those.

A libsodium sealed box needs no secret of the client's.  The keys live in memory and change every
quarter of an hour; one that was given out opens boxes for at least as long.  After a restart the
CLI has to ask again, which it does with every command.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox
from nacl.signing import SigningKey

from edge.clock import Clock
from edge.errors import ApiRefused, Refusal

PERIOD_SECONDS: Final = 15 * 60.0  # a key is given out so long, and opens for twice that


@dataclass(frozen=True, slots=True)
class ClientKey:
    """One of them."""

    private: PrivateKey = field(repr=False)
    public: bytes  # X25519
    signature: bytes  # Ed25519, over the public key
    expires_at: float  # seconds since 1970
    given_until: float  # of the monotonic clock
    good_until: float  # likewise


class ClientKeys:
    """The one that is given out, and the one before it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._signing = SigningKey.generate()
        self._keys: tuple[ClientKey, ...] = ()  # oldest first, two at most
        self.signing_key = bytes(self._signing.verify_key)

    def current(self) -> ClientKey:
        """A key that is good for at least a quarter of an hour."""
        now = self._clock.monotonic()
        if not self._keys or now >= self._keys[-1].given_until:
            self._keys = (*self._keys[-1:], self._made(now))
        return self._keys[-1]

    def open(self, public: bytes, sealed: bytes) -> bytes:
        """What was sealed to one of them.  ApiRefused INVALID."""
        now = self._clock.monotonic()
        for key in self._keys:
            if key.public == public and now < key.good_until:
                try:
                    return SealedBox(key.private).decrypt(sealed)
                except (CryptoError, ValueError):
                    raise ApiRefused(
                        Refusal.INVALID, "the secret was not sealed to this client key"
                    ) from None
        raise ApiRefused(Refusal.INVALID, "the client key is not known any more; ask for another")

    def _made(self, now: float) -> ClientKey:
        private = PrivateKey.generate()
        public = bytes(private.public_key)
        return ClientKey(
            private,
            public,
            self._signing.sign(public).signature,
            self._clock.wall() + 2 * PERIOD_SECONDS,
            now + PERIOD_SECONDS,
            now + 2 * PERIOD_SECONDS,
        )
