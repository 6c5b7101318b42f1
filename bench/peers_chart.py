"""Horizontal bars in groups as SVG, each group scaled to its own largest value. Text is of a grey that reads on white as on black; no background."""
import html

OURS, OURS_EXACT, PEER, FLOAT = "#2f9e6e", "#86c5a8", "#3b82c4", "#a3adb8"
LEFT, WIDTH, BAR, GAP = 230, 440, 20, 14


def colour(who, kind):
    if kind == "zq":
        return OURS_EXACT if "exact" in who else OURS
    return FLOAT if kind in ("float", "yardstick") or who.endswith(("fp32", "bf16")) else PEER


def write(path, title, subtitle, groups):
    """groups: [(title, [(label, value, colour)])]"""
    body, y = [], 56
    for name, bars in groups:
        body.append(f'<text x="8" y="{y + 14}" font-weight="bold">{html.escape(name)}</text>')
        y += 22
        largest = max((value for _, value, _ in bars), default=1)
        for label, value, fill in bars:
            length, text = WIDTH * value / largest, f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            body.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{html.escape(label)}</text>'
                        f'<rect x="{LEFT}" y="{y + 1}" width="{length:.1f}" height="{BAR - 4}" rx="2" fill="{fill}"/>'
                        f'<text x="{LEFT + length + 6:.1f}" y="{y + 13}">{text}</text>')
            y += BAR
        y += GAP
    with open(path, "w") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 80} {y}" width="{LEFT + WIDTH + 80}" height="{y}" '
                   f'font-family="system-ui, \'DejaVu Sans\', Arial, sans-serif" font-size="13" fill="#6e7781">\n'
                   f'<text x="8" y="22" font-size="15" font-weight="bold">{html.escape(title)}</text>\n<text x="8" y="42">{html.escape(subtitle)}</text>\n'
                   + "\n".join(body) + "\n</svg>\n")
