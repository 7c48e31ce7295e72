"""Computes colors that people can read: contrasts as WCAG 2 defines them."""

WHITE, BLACK = "#ffffff", "#000000"
DARK_CARD = "#1d2026"
"""The background of emails in dark mode; `layout.html` has it, too."""

OF_TEXT, OF_SHAPES = 4.5, 3
"""The contrasts that WCAG 2 asks for on level AA: of texts, and of buttons and the like."""

_STEPS = 50


def measure_contrast(one: str, other: str) -> float:
    """Return the contrast of two colors, each `#rrggbb`: from 1 for equal ones to 21 for black and white."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def choose_text(background: str) -> str:
    """Return black or white: the one that is easier to read on the background, which is always readable."""
    return max(WHITE, BLACK, key=lambda color: measure_contrast(color, background))


def make_distinct(color: str, background: str, contrast: float) -> str:
    """Return the color, as far changed towards white or black as it takes to have the contrast to the background."""
    target = choose_text(background)
    shades = (_mix(color, target, step / _STEPS) for step in range(_STEPS))
    return next((shade for shade in shades if measure_contrast(shade, background) >= contrast), target)


def _mix(color: str, other: str, share: float) -> str:
    pairs = zip(_parse(color), _parse(other), strict=True)
    return "#" + "".join(f"{round(one + (two - one) * share):02x}" for one, two in pairs)


def _luminance(color: str) -> float:
    red, green, blue = (_linearize(part / 255) for part in _parse(color))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linearize(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004 (the constants of sRGB)


def _parse(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color[1:]))
