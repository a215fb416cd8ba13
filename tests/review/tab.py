"""The headless browser as a person uses it: pages by their address, clicks, words typed, and waiting for things."""

from __future__ import annotations

import json
from typing import Any

from tests.support.browser import Browser

WAIT_S = 30.0


class Tab(Browser):
    """A browser in front of a page that changes."""

    def visit(self, url: str) -> None:
        """Load an address, and wait until it has loaded."""
        self.call("Page.navigate", url="about:blank")  # what the page before it still loads is given up here
        self._until("Page.loadEventFired")
        self.complaints.clear()
        failed = self.call("Page.navigate", url=url).get("errorText")
        assert failed is None, failed
        self._until("Page.loadEventFired")

    def text(self, selector: str) -> str:
        """The visible text of the first element that a selector finds."""
        found = self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")
        assert isinstance(found, str)
        return found

    def until(self, expression: str) -> None:
        """Wait until an expression is true, looked at within the browser."""
        look = (
            "new Promise((done) => { const end = performance.now() + %d; const look = () => { let met = false; "
            "try { met = Boolean(%s); } catch (error) { met = false; } "
            "if (met || performance.now() > end) done(met); else setTimeout(look, 20); }; look(); })"
        )
        assert self.evaluate(look % (int(WAIT_S * 1000), expression)), f"{expression} did not come true"

    def click(self, selector: str) -> None:
        """Press and let go of the mouse over the middle of an element."""
        place: list[float] = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._mouse(kind, place)

    def write(self, selector: str, text: str) -> None:
        """Click into a field and type."""
        self.click(selector)
        self.call("Input.insertText", text=text)

    def _mouse(self, kind: str, place: list[float]) -> Any:
        return self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)
