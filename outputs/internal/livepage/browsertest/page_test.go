package browsertest

import (
	"os"
	"testing"

	"github.com/chromedp/chromedp"
)

const listeners = `
[[inputs.tcp_listen]]
settle = "1s"
owner_wait = "1s"
established = true
`

func TestDemo(t *testing.T) {
	startProgram(t, listeners)
	startChild(t, "nginx", "127.0.0.1:80", "0.0.0.0:443")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	c := startChild(t, "postgres", "127.0.0.1:5432")
	tb.wait(`document.getElementById("rows").innerText.includes("5432")`)
	tb.wait(`document.getElementById("events").innerText.includes("5432")`)
	shot, err := chromedp.Run(tb.ctx, chromedp.CaptureScreenshot())
	if err != nil { t.Fatal(err) }
	os.WriteFile("/tmp/w-live14/real.png", shot, 0o644)
	c.stop()
	tb.wait(`document.querySelector("tr[data-mark=closed]")`)
	t.Log(tb.text("body"))
}
