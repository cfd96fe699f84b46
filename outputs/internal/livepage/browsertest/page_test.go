package browsertest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// listeners is an input that reports each change soon.
const listeners = `
[[inputs.tcp_listen]]
interval = "10s"
scan_interval = "100ms"
timeout = "1m"
settle = "1s"
owner_wait = "1s"
established = true
max_listeners = 10000
`

// row returns the JavaScript expression for the row of an address, or null.
func row(address string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#rows tr")].find((r) => r.querySelector("td.address a").textContent === %q)`, address)
}

// addresses is the JavaScript expression for the addresses in the table, in order.
const addresses = `[...document.querySelectorAll("#rows tr td.address a")].map((a) => a.textContent)`

// events is the JavaScript expression for the events of an address and what happened, latest
// first.
func events(address string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#events li")].filter((e) => e.querySelector("a")?.textContent === %q).map((e) => e.querySelector(".tag").textContent)`, address)
}

// listeners waits until the table has these addresses, in this order.
func (tb *tab) listeners(want string) {
	tb.t.Helper()
	tb.wait(fmt.Sprintf("%s.join() === %q", addresses, want))
}

func TestListenerThatOpensAppearsWithoutReload(t *testing.T) {
	startProgram(t, listeners)
	c := startChild(t, "web", "127.0.0.1:80")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	tb.do(chromedp.Evaluate[chromedp.Void](`window.sameDocument = true; undefined`))
	tb.listeners("127.0.0.1:80," + address)
	c.do("open 127.0.0.1:443")
	tb.wait(row("127.0.0.1:443"))
	tb.listeners("127.0.0.1:80,127.0.0.1:443," + address)
	tb.is(row("127.0.0.1:443")+".dataset.mark", "opened")
	tb.is(row("127.0.0.1:80")+".dataset.mark", "undefined")
	tb.is(`document.getElementById("count").innerText`, "3 listeners")
	tb.is(`document.getElementById("announce").textContent`, "1 opened")
	tb.wait(events("127.0.0.1:443") + `.join() === "opened"`)
	tb.is("window.sameDocument", "true")
}

func TestListenerThatClosesIsMarkedAndLeaves(t *testing.T) {
	startProgram(t, listeners)
	c := startChild(t, "web", "127.0.0.1:80", "127.0.0.1:443", "127.0.0.1:8443")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	c.do("close 127.0.0.1:443")
	tb.wait(row("127.0.0.1:443") + `.dataset.mark === "closed"`)
	tb.listeners("127.0.0.1:80,127.0.0.1:443," + address + ",127.0.0.1:8443")
	tb.is(`document.getElementById("count").innerText`, "3 listeners")
	tb.is(`document.getElementById("clear").textContent`, "Clear marks: 1 closed")
	tb.wait(events("127.0.0.1:443") + `.join() === "closed,opened"`)

	// It leaves by itself after a while: here, as if that was over.
	tb.do(chromedp.Evaluate[chromedp.Void](row("127.0.0.1:443") + `.dataset.closed = "1"; undefined`))
	tb.wait("!" + row("127.0.0.1:443"))

	// It also leaves when the marks are cleared.
	c.do("close 127.0.0.1:8443")
	tb.wait(row("127.0.0.1:8443") + `.dataset.mark === "closed"`)
	tb.do(chromedp.Click(chromedp.CSS("#clear")))
	tb.listeners("127.0.0.1:80," + address)
	tb.is(`document.getElementById("clear").hidden`, "true")

	// One that comes back is an ordinary row again.
	c.do("close 127.0.0.1:80")
	tb.wait(row("127.0.0.1:80") + `.dataset.mark === "closed"`)
	time.Sleep(1100 * time.Millisecond) // the marks count in seconds
	c.do("open 127.0.0.1:80")
	tb.wait(row("127.0.0.1:80") + `.dataset.mark !== "closed"`)
	tb.listeners("127.0.0.1:80," + address)
}

func TestRestartIsOneChange(t *testing.T) {
	startProgram(t, strings.Replace(listeners, `settle = "1s"`, `settle = "1m"`, 1))
	c := startChild(t, "web", "127.0.0.1:80")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	tb.wait(events("127.0.0.1:80") + `.join() === "opened"`)
	// The marks begin in the second in which it was opened: it is not opened again.
	tb.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("clear").click(); undefined`))
	time.Sleep(1100 * time.Millisecond) // the marks count in seconds
	pid := eval[string](tb, row("127.0.0.1:80")+`.querySelector(".pid").textContent`)
	c.stop()
	c.start("127.0.0.1:80")
	tb.wait(events("127.0.0.1:80") + `.length > 1`)
	tb.is(events("127.0.0.1:80"), "restarted,opened")
	tb.wait(row("127.0.0.1:80") + `.dataset.mark === "changed"`)
	tb.listeners("127.0.0.1:80," + address)
	if got := eval[string](tb, row("127.0.0.1:80")+`.querySelector(".pid").textContent`); got == pid || got != fmt.Sprint(c.cmd.Process.Pid) {
		t.Errorf("pid %s, before %s, want %d", got, pid, c.cmd.Process.Pid)
	}
	if text := tb.text("#events li"); !strings.Contains(text, "was pid "+pid) {
		t.Errorf("the event does not say what was before: %s", text)
	}
}

func TestSearchFiltersWhileTyping(t *testing.T) {
	startProgram(t, listeners)
	c := startChild(t, "web", "127.0.0.1:80", "0.0.0.0:443")
	startChild(t, "database", "127.0.0.1:5432")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	tb.do(chromedp.Evaluate[chromedp.Void](`window.sameDocument = true; undefined`))
	tb.do(chromedp.Click(chromedp.CSS("#q")))
	tb.keys("process:web")
	tb.wait(addresses + `.join() === "127.0.0.1:80,0.0.0.0:443"`)
	tb.is("location.search", "?q=process%3Aweb")
	tb.is(`document.getElementById("count").innerText`, "2 of 4 listeners match clear the search")
	tb.is("document.activeElement.id", "q")

	// What opens is shown if it matches.
	c.do("open 127.0.0.1:8080")
	tb.wait(row("127.0.0.1:8080"))

	// A key that nothing has is explained, and the page stays usable.
	tb.keys(" prozess:x")
	tb.wait(`document.getElementById("messages").innerText.includes('Did you mean "process"?')`)

	// Back leads to what was before the typing, forward to its end.
	tb.do(chromedp.Evaluate[chromedp.Void](`history.back(); undefined`))
	tb.wait(addresses + `.length === 5`)
	tb.is(`document.getElementById("q").value`, "")
	tb.do(chromedp.Evaluate[chromedp.Void](`history.forward(); undefined`))
	tb.wait(addresses + `.length === 3`)
	tb.is(`document.getElementById("q").value`, "process:web prozess:x")
	tb.is("window.sameDocument", "true")
}

func TestFiltersAndSortingAreLinks(t *testing.T) {
	startProgram(t, listeners)
	startChild(t, "web", "127.0.0.1:80")
	startChild(t, "database", "127.0.0.1:5432")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	tb.do(chromedp.Evaluate[chromedp.Void](`window.sameDocument = true; undefined`))
	tb.is(`document.querySelector("th[aria-sort]").innerText.trim() + " " + document.querySelector("th[aria-sort]").ariaSort`, "Address ascending")
	tb.do(chromedp.Click(chromedp.CSS("th.process a")))
	tb.wait(`document.querySelector("th.process")?.ariaSort === "ascending"`)
	tb.listeners("127.0.0.1:5432," + address + ",127.0.0.1:80")
	tb.do(chromedp.Click(chromedp.CSS("th.process a")))
	tb.wait(`document.querySelector("th.process")?.ariaSort === "descending"`)
	tb.listeners("127.0.0.1:80," + address + ",127.0.0.1:5432")
	tb.is("location.search", "?sort=-process")
	tb.do(chromedp.Click(chromedp.CSS("a.facet-public")))
	tb.wait(`document.getElementById("count").innerText.startsWith("0 of 3")`)
	tb.is(`document.getElementById("q").value`, "exposure:public")
	tb.is(`document.querySelector("a.facet-public").ariaCurrent`, "true")
	tb.do(chromedp.Evaluate[chromedp.Void](`history.back(); undefined`))
	tb.wait(addresses + `.length === 3`)
	tb.do(chromedp.Evaluate[chromedp.Void](`history.back(); undefined`))
	tb.wait(`document.querySelector("th.process")?.ariaSort === "ascending"`)
	tb.listeners("127.0.0.1:5432," + address + ",127.0.0.1:80")
	tb.is("window.sameDocument", "true")
}

func TestKeyboard(t *testing.T) {
	startProgram(t, listeners)
	c := startChild(t, "web", "127.0.0.1:80", "127.0.0.1:443")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	focused := `document.activeElement.textContent`
	tb.keys("/")
	tb.is("document.activeElement.id", "q")
	tb.keys("process:web" + kb.ArrowDown)
	tb.wait(focused + ` === "127.0.0.1:80"`)
	tb.wait(addresses + `.length === 2`)
	tb.keys(kb.ArrowDown)
	tb.is(focused, "127.0.0.1:443")
	tb.keys(kb.ArrowDown) // the last one
	tb.is(focused, "127.0.0.1:443")

	// What has the focus keeps it when rows are added before it, and when it is replaced.
	c.do("open 127.0.0.1:81")
	tb.wait(row("127.0.0.1:81"))
	tb.is(focused, "127.0.0.1:443")
	connection := dial(t, "127.0.0.1:443")
	tb.wait(row("127.0.0.1:443") + `.querySelector("td.established").innerText === "1"`)
	tb.is(focused, "127.0.0.1:443")
	connection.Close()

	tb.keys(kb.Enter)
	tb.wait(`document.body.dataset.page === "listener"`)
	if text := tb.text("main"); !strings.Contains(text, "127.0.0.1:443 web") || !strings.Contains(text, c.path) {
		t.Errorf("the page of the listener:\n%s", text)
	}
	tb.keys(kb.Escape)
	tb.wait(`document.body.dataset.page === "page" && document.getElementById("live").dataset.state === "on"`)
	tb.is("location.search", "?q=process%3Aweb")
	tb.keys("/")
	tb.keys(kb.Escape)
	tb.is("document.activeElement.tagName", "BODY")
}

func TestPauseHoldsBackWhatChanges(t *testing.T) {
	startProgram(t, listeners)
	c := startChild(t, "web", "127.0.0.1:80", "127.0.0.1:443")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	time.Sleep(1100 * time.Millisecond) // the marks count in seconds
	tb.do(chromedp.Click(chromedp.CSS("#pause")))
	c.do("open 127.0.0.1:81")
	tb.wait(`document.getElementById("state").textContent.match(/^paused, as of [0-9:]{8}, changes are waiting$/)`)
	c.do("close 127.0.0.1:443")
	c.do("open 127.0.0.1:82")
	tb.wait(`fetch("/api/listeners?q=port:82").then((r) => r.json()).then((l) => l.length === 1)`)
	time.Sleep(500 * time.Millisecond)
	tb.is(addresses, "127.0.0.1:80,127.0.0.1:443,"+address)
	tb.do(chromedp.Click(chromedp.CSS("#pause")))
	tb.wait(row("127.0.0.1:82"))
	tb.listeners("127.0.0.1:80,127.0.0.1:443,127.0.0.1:81,127.0.0.1:82," + address)
	tb.is(`[...document.querySelectorAll("#rows tr")].map((r) => r.dataset.mark ?? "")`, ",closed,opened,opened,")
}

func TestWithoutJavaScript(t *testing.T) {
	startProgram(t, listeners)
	startChild(t, "web", "127.0.0.1:80")
	startChild(t, "database", "127.0.0.1:5432")
	tb := newTab(t, origin)
	if _, err := chromedp.Call(tb.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	load := func(steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if _, err := chromedp.RunResponse(tb.ctx, steps...); err != nil {
			t.Fatal(err)
		}
	}
	load(chromedp.Navigate(origin + "/"))
	tb.is(`document.getElementById("live").hidden`, "true")
	tb.listeners("127.0.0.1:80,127.0.0.1:5432," + address)
	load(chromedp.Click(chromedp.CSS("th.process a")))
	tb.listeners("127.0.0.1:5432," + address + ",127.0.0.1:80")
	tb.do(chromedp.SendKeys(chromedp.CSS("#q"), "port:80 -process:database"))
	load(chromedp.Click(chromedp.CSS("#search button")))
	tb.listeners("127.0.0.1:80")
	tb.is("location.search", "?q=port%3A80+-process%3Adatabase&sort=process")
	load(chromedp.Click(chromedp.CSS("a.facet-loopback")))
	tb.listeners("127.0.0.1:80")
	load(chromedp.Click(chromedp.CSS("td.address a")))
	if text := tb.text("main"); !strings.Contains(text, "127.0.0.1:80 web") {
		t.Errorf("the page of the listener:\n%s", text)
	}
	load(chromedp.Navigate(origin + "/events"))
	tb.is(`[...document.querySelectorAll("#events .tag")].map((e) => e.textContent)`, "opened,opened")
}

func TestHostileNamesAreText(t *testing.T) {
	startProgram(t, listeners)
	const name = "<img src=x onerror=alert(1)>"
	tb := newTab(t, origin)
	tb.open(origin + "/?q=" + name)
	c := startChild(t, name, "127.0.0.1:80")
	tb.wait(`document.getElementById("messages").innerText + document.getElementById("q").value`)
	tb.is(`document.getElementById("q").value`, name)
	tb.do(chromedp.Navigate(origin + "/"))
	tb.wait(row("127.0.0.1:80"))
	tb.wait(events("127.0.0.1:80") + `.length === 1`)                                                                  // its owner is known
	tb.is(row("127.0.0.1:80")+`.querySelector("td.process").innerText`, fmt.Sprint(name[:15], " ", c.cmd.Process.Pid)) // the kernel cuts names
	tb.is("document.images.length", "0")
	tb.do(chromedp.Click(chromedp.CSS(`#rows tr td.address a`)))
	tb.wait(`document.body.dataset.page === "listener"`)
	if text := tb.text("main"); !strings.Contains(text, "/"+name) {
		t.Errorf("the page of the listener does not have the program:\n%s", text)
	}
	tb.is("document.images.length", "0")
}

func TestFiveThousandListeners(t *testing.T) {
	c := startChild(t, "many")
	c.do("open-many 5000")
	startProgram(t, "[[inputs.tcp_listen]]\nmax_listeners = 10000\n") // gathers need long on a loaded machine
	tb := newTab(t, origin)
	tb.open(origin + "/")
	tb.wait(`document.getElementById("count").innerText === "5001 listeners"`)
	tb.is(addresses+".length", "500")
	tb.is(`document.querySelector("#more a[rel=next]").innerText`, "4501 more")

	c.do("open 127.0.0.1:80")
	tb.wait(row("127.0.0.1:80"))
	tb.is(addresses+".length", "500")

	tb.do(chromedp.Click(chromedp.CSS("#more a[rel=next]")))
	tb.wait(row("127.0.0.1:20700"))
	tb.is("scrollY", "0") // the next page begins at its beginning
	tb.is("location.search", "?from=500")
	tb.is(addresses+".length", "500")

	// Arrows begin at what is visible.
	tb.do(chromedp.Evaluate[chromedp.Void](`document.activeElement.blur(); scrollTo(0, 5000); undefined`))
	tb.keys(kb.ArrowDown)
	tb.wait(`document.activeElement.matches("td.address a") && scrollY > 4000 && document.activeElement.getBoundingClientRect().top >= 0`)

	tb.keys("/port:24999")
	tb.is(`document.getElementById("q").value`, "port:24999")
	tb.wait(addresses + `.join() === "127.0.0.1:24999"`)
	c.do("close 127.0.0.1:24999")
	tb.wait(row("127.0.0.1:24999") + `.dataset.mark === "closed"`)
}

// A page of another site that points its name to this host gets nothing.
func TestRebindingHostIsRefused(t *testing.T) {
	startProgram(t, listeners)
	tb := newTab(t, "", chromedp.Flag("host-resolver-rules", "MAP evil.example 127.0.0.1"))
	tb.tolerate("403", "favicon.ico", "Cross-Origin-Opener-Policy header has been ignored")
	for _, path := range []string{"/", "/stream", "/api/listeners", "/api/events", "/events", "/health"} {
		resp, err := chromedp.Run(tb.ctx, chromedp.NavigateResponse("http://evil.example:8088"+path))
		if err != nil {
			t.Fatal(err)
		}
		if resp.Status != 403 || !strings.Contains(tb.text("body"), "page_hosts") {
			t.Errorf("%s: status %d, %s", path, resp.Status, tb.text("body"))
		}
	}
	resp, err := chromedp.Run(tb.ctx, chromedp.NavigateResponse("http://evil.example:8088/metrics"))
	if err != nil || resp.Status != 200 {
		t.Errorf("/metrics: status %v, %v", resp, err)
	}
}

func TestPageReconnectsByItself(t *testing.T) {
	p := startProgram(t, listeners)
	c := startChild(t, "web", "127.0.0.1:80")
	tb := newTab(t, origin)
	tb.tolerate("net::ERR_CONNECTION_REFUSED", "net::ERR_INCOMPLETE_CHUNKED_ENCODING")
	tb.open(origin + "/")
	tb.do(chromedp.Evaluate[chromedp.Void](`window.sameDocument = true; undefined`))
	if took := p.stop(); took > 900*time.Millisecond {
		t.Errorf("with an open page, sockwatch takes %v to stop", took)
	}
	tb.wait(`document.getElementById("live").dataset.state === "connecting"`)
	tb.wait(`document.getElementById("state").textContent.match(/^reconnecting, as of [0-9:]{8}$/)`) // what is shown is old
	// Resume does not say that it is live, either.
	for range 2 {
		tb.do(chromedp.Click(chromedp.CSS("#pause")))
	}
	tb.is(`document.getElementById("live").dataset.state`, "connecting")
	c.do("open 127.0.0.1:443")
	p.start()
	tb.wait(`document.getElementById("live").dataset.state === "on"`)
	tb.wait(row("127.0.0.1:443"))
	tb.is("window.sameDocument", "true")
}

// An address that has another owner since the page had its last stream has not closed.
func TestAnotherOwnerAfterAPauseClosesNothing(t *testing.T) {
	startProgram(t, listeners)
	c := startChild(t, "web", "127.0.0.1:80", "127.0.0.1:443")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	visible := func(hidden bool) {
		tb.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`Object.defineProperty(document, "hidden", { value: %v, configurable: true }); document.dispatchEvent(new Event("visibilitychange")); undefined`, hidden)))
	}
	visible(true)
	c.stop()
	startChild(t, "other", "127.0.0.1:80")
	tb.wait(`fetch("/api/listeners").then((r) => r.text()).then((text) => text.includes('"other"'))`)
	visible(false)
	tb.wait(row("127.0.0.1:443") + `.dataset.mark === "closed"`)
	tb.wait(row("127.0.0.1:80") + `.querySelector(".process").innerText.startsWith("other")`)
	tb.listeners("127.0.0.1:443,127.0.0.1:80," + address) // one that has closed keeps its place
}

// TestRandomChangesEndInTheServedPage: whatever a page has gone through, it shows what the server
// would send for its address now.
func TestRandomChangesEndInTheServedPage(t *testing.T) {
	startProgram(t, listeners)
	c := startChild(t, "web", "127.0.0.1:9000")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	r := rand.New(rand.NewPCG(14, 0))
	open := map[string]bool{}
	script := func(text string) func() {
		return func() { tb.do(chromedp.Evaluate[chromedp.Void](text + "; undefined")) }
	}
	visible := func(hidden bool) func() {
		return script(fmt.Sprintf(`Object.defineProperty(document, "hidden", { value: %v, configurable: true }); document.dispatchEvent(new Event("visibilitychange"))`, hidden))
	}
	steps := []func(){
		script(`document.getElementById("pause").click()`), script(`document.getElementById("pause").click()`), visible(true), visible(false),
		script(`document.querySelector("a.facet-loopback")?.click()`), script(`document.querySelector("th.since a").click()`),
		script(`document.querySelector("th.process a").click()`), script(`if (location.search) history.back()`), script(`document.getElementById("clear").click()`),
		script(`document.querySelector("#count a")?.click()`),
	}
	for range 15 {
		for range 6 {
			if r.IntN(2) == 0 {
				steps[r.IntN(len(steps))]()
				continue
			}
			a := fmt.Sprint("127.0.0.1:", 9001+r.IntN(8))
			if open[a] {
				c.do("close " + a)
			} else {
				c.do("open " + a)
			}
			open[a] = !open[a]
		}
		visible(false)()
		script(`if (document.getElementById("pause").textContent === "Resume") document.getElementById("pause").click()`)()
		tb.wait(`document.body.dataset.page === "page" && fetch(location.href).then((r) => r.text()).then((text) => {
			const of = (page) => JSON.stringify([
				[...page.querySelectorAll("#rows tr")].filter((r) => !r.dataset.closed).map((r) => r.id + r.textContent),
				[...page.querySelectorAll("#events li")].map((e) => e.id + e.textContent),
				...["count", "facets", "messages", "latest", "more", "earlier", "columns"].map((id) => page.getElementById(id).outerHTML)]);
			return of(document) === of(new DOMParser().parseFromString(text, "text/html"));
		})`)
	}
}

// A page that cannot have a stream says so, and a hidden one gives its stream to others.
func TestStreamsAreLimitedAndFreedByHiddenPages(t *testing.T) {
	startProgram(t, listeners)
	tb := newTab(t, origin)
	tb.tolerate("503")
	tb.open(origin + "/")
	var streams []io.Closer
	open := func() int {
		t.Helper()
		resp, err := http.Get(origin + "/stream")
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, resp.Body)
		return resp.StatusCode
	}
	closeAll := func() {
		for _, s := range streams {
			s.Close()
		}
		streams = nil
	}
	defer closeAll()
	for i := range 7 {
		if status := open(); status != 200 {
			t.Fatalf("stream %d: status %d", i, status)
		}
	}
	if status := open(); status != 503 {
		t.Errorf("the ninth stream: status %d", status)
	}
	tb.do(chromedp.Evaluate[chromedp.Void](`Object.defineProperty(document, "hidden", { value: true, configurable: true }); document.dispatchEvent(new Event("visibilitychange")); undefined`))
	for deadline := time.Now().Add(timeout); open() != 200; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a hidden page keeps its stream")
		}
	}
	const show = `Object.defineProperty(document, "hidden", { value: false, configurable: true }); document.dispatchEvent(new Event("visibilitychange")); undefined`
	tb.do(chromedp.Evaluate[chromedp.Void](show))
	tb.wait(`document.getElementById("state").textContent.match(/^too many live pages, as of [0-9:]{8}, reload to update$/)`)
	// The table is as it was loaded, and its links load others.
	tb.do(chromedp.Evaluate[chromedp.Void](`window.sameDocument = true; undefined`))
	tb.do(chromedp.Click(chromedp.CSS("th.process a")))
	tb.wait(`window.sameDocument === undefined && document.querySelector("th.process").ariaSort === "ascending"`)
	tb.wait(`document.getElementById("state").textContent.match(/^too many live pages, as of [0-9-]{10} [0-9:]{8}, reload to update$/)`)
	closeAll()
	tb.do(chromedp.Reload())
	tb.wait(`document.getElementById("live").dataset.state === "on"`)
}

// Views of a page.
var views = []struct {
	name          string
	width, height int64
	dark          bool
	axe           bool // checked by axe-core; the others only for their width
}{
	{name: "light", width: 1280, height: 800, axe: true},
	{name: "dark", width: 1700, height: 800, dark: true, axe: true},
	{name: "half", width: 960, height: 800},
	{name: "narrow", width: 360, height: 740, axe: true},
	{name: "narrow and dark", width: 360, height: 740, dark: true},
}

func TestPagesAreAccessible(t *testing.T) {
	axe := readFile(t, "node_modules/axe-core/axe.min.js")
	startProgram(t, rules)
	c := startChild(t, "web", "127.0.0.1:80", "0.0.0.0:443", "127.0.0.1:8443")
	startChild(t, "telnetd", "0.0.0.0:23")
	c.do("fill 127.0.0.1:80 5")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	c.do("open 127.0.0.1:81")
	c.do("close 127.0.0.1:8443")
	tb.wait(row("127.0.0.1:8443") + `.dataset.mark === "closed"`)
	listener := eval[string](tb, row("127.0.0.1:80")+`.querySelector("a").href`)
	tb.wait(`document.querySelector("#alerts li")`)
	for _, path := range []string{"", "/?q=prozess:x+port:80", "/?q=port:1", "/events", "/health", listener, "/listener/none"} {
		switch {
		case path == "": // as it is, with marks
		case strings.HasPrefix(path, "/"):
			tb.tolerate("404")
			tb.do(chromedp.Navigate(origin + path))
		default:
			tb.do(chromedp.Navigate(path))
		}
		for _, v := range views {
			tb.look(v.width, v.height, v.dark)
			if wide := eval[int64](tb, "document.documentElement.scrollWidth"); wide > v.width {
				t.Errorf("%s is %d pixels wide in %s (%d)", path, wide, v.name, v.width)
			}
			if !v.axe {
				continue
			}
			tb.do(chromedp.Evaluate[chromedp.Void](axe + "; undefined"))
			violations := eval[[]string](tb, `axe.run().then((r) =>
				r.violations.flatMap((v) => v.nodes.map((n) => v.id + ": " + n.target.join(" ") + ": " + n.failureSummary)))`)
			for _, text := range violations {
				t.Errorf("%s in %s: %s", path, v.name, text)
			}
		}
	}
}

// TestLongNamesDoNotWidenThePage, whatever they name. No real host has all of them, so they are
// put into a page that has everything else.
func TestLongNamesDoNotWidenThePage(t *testing.T) {
	startProgram(t, rules+`
[[outputs.influxdb]]
urls = ["http://127.0.0.1:9/"]
database = "d"
`)
	startChild(t, "telnetd", "0.0.0.0:23")
	tb := newTab(t, origin)
	tb.open(origin + "/")
	tb.wait(`document.querySelector("#alerts a") && document.querySelector("#health.bad li")`)
	listener := eval[string](tb, row("0.0.0.0:23")+`.querySelector("a").href`)
	for _, url := range []string{origin + "/", origin + "/events", origin + "/health", listener} {
		tb.do(chromedp.Navigate(url))
		tb.do(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("td.address").forEach((e) => e.insertAdjacentHTML("beforeend", "<span class=netns></span>"));
			document.querySelectorAll("td.address a").forEach((e) => (e.textContent = "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535"));
			document.querySelectorAll("td.user, td.where, .netns, .rule, bdi, td[data-label=State], dd, li > a, .owner, .before, main li:not(:has(*)), header li, main p, h2").forEach((e) => (e.textContent = "long".repeat(100)));
			undefined`))
		for _, width := range []int64{320, 640, 768, 941, 960, 1201, 1280, 1701, 1920} {
			tb.look(width, 800, false)
			if wide := eval[int64](tb, "Math.max(document.documentElement.scrollWidth, ...[...document.querySelectorAll('table')].map((e) => e.scrollWidth))"); wide > width {
				t.Errorf("%s is %d pixels wide in a window of %d", url, wide, width)
			}
		}
	}
}

// rules are listeners with broken rules.
const rules = listeners + `
unlisted = "unexpected"
[[inputs.tcp_listen.expect]]
name = "backup"
port = 9102
[[inputs.tcp_listen.forbid]]
name = "telnet"
port = 23
[[inputs.tcp_listen.allow]]
port = [80, 443, 8088]
`

func TestBrokenRulesAreAtTheTop(t *testing.T) {
	startProgram(t, rules)
	tb := newTab(t, origin)
	tb.open(origin + "/")
	startChild(t, "telnetd", "0.0.0.0:23")
	tb.wait(row("0.0.0.0:23") + `?.dataset.expected === "forbidden"`)
	tb.wait(`document.querySelectorAll("#alerts li").length === 2`)
	got := eval[[]string](tb, `[...document.querySelectorAll("#alerts .tag")].map((e) => e.textContent)`)
	slices.Sort(got)
	if want := []string{"forbidden", "missing"}; !slices.Equal(got, want) {
		t.Errorf("alerts %q, want %q", got, want)
	}
	tb.do(chromedp.Click(chromedp.CSS(".alert-forbidden a")))
	tb.wait(addresses + `.join() === "0.0.0.0:23"`)
}
