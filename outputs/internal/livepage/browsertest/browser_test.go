package browsertest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"
)

// timeout ends every test that waits for something that does not come.
const timeout = 3 * time.Minute

// A tab is one tab of a Chromium of its own.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu        sync.Mutex
	problems  []string // of the console, CSP and exceptions
	requests  []string // URLs
	tolerated []string // parts of problems that are meant to be there
}

// tolerate makes the test expect problems with one of these texts.
func (tb *tab) tolerate(texts ...string) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.tolerated = append(tb.tolerated, texts...)
}

// newTab starts a Chromium. When the test ends, it fails for each error on the console and
// each request to another origin than origin, "" for any.
func newTab(t *testing.T, origin string, options ...chromedp.ExecAllocatorOption) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if required() {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	options = append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.WindowSize(1280, 800),
	}, options...)...)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	tb := &tab{t: t}
	tb.ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(tb.observe), chromedp.WithErrorf(t.Logf))
	t.Cleanup(cancel)
	t.Cleanup(func() {
		tb.mu.Lock()
		defer tb.mu.Unlock()
		for _, p := range tb.problems {
			if !slices.ContainsFunc(tb.tolerated, func(text string) bool { return strings.Contains(p, text) }) {
				t.Error("console: ", p)
			}
		}
		for _, r := range tb.requests {
			if origin != "" && !strings.HasPrefix(r, origin+"/") {
				t.Error("request to another origin: ", r)
			}
		}
	})
	return tb
}

// observe collects what a page must not do.
func (tb *tab) observe(ev any) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		tb.requests = append(tb.requests, ev.Request.URL)
	case *runtime.EventConsoleAPICalled:
		tb.problems = append(tb.problems, fmt.Sprintf("%s %v", ev.Type, ev.Args))
	case *runtime.EventExceptionThrown:
		tb.problems = append(tb.problems, ev.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		tb.problems = append(tb.problems, fmt.Sprintf("%s %s %s", ev.Entry.Source, ev.Entry.Text, ev.Entry.URL))
	case *page.EventJavascriptDialogOpening:
		tb.problems = append(tb.problems, "dialog: "+ev.Message)
	}
}

// open opens a page and waits until it is live.
func (tb *tab) open(url string) {
	tb.t.Helper()
	tb.do(chromedp.Navigate(url))
	tb.wait(`document.getElementById("live").dataset.state === "on"`)
}

// wait waits until a JavaScript expression, or what it promises, is true. Meanwhile the page
// may be replaced by another one.
func (tb *tab) wait(expression string) {
	tb.t.Helper()
	for deadline := time.Now().Add(timeout / 2); ; time.Sleep(20 * time.Millisecond) {
		holds, err := chromedp.Run(tb.ctx, chromedp.Evaluate[bool]("Promise.resolve("+expression+").then((v) => !!v)", chromedp.EvalAwaitPromise))
		if holds {
			return
		}
		if time.Now().After(deadline) {
			tb.t.Fatalf("%s: %v; the page has\n%s", expression, err, tb.text("body"))
		}
	}
}

// is fails the test unless a JavaScript expression has a value.
func (tb *tab) is(expression, want string) {
	tb.t.Helper()
	if diff := cmp.Diff(want, eval[string](tb, "String("+expression+")")); diff != "" {
		tb.t.Errorf("%s (-want +got):\n%s", expression, diff)
	}
}

// text returns the text of the first element of a selector.
func (tb *tab) text(selector string) string {
	tb.t.Helper()
	return eval[string](tb, fmt.Sprintf("document.querySelector(%q)?.innerText ?? 'no such element'", selector))
}

// keys presses keys as a keyboard does: a key that the page handles types nothing. (The
// events of chromedp.KeyEvent type it all the same.)
func (tb *tab) keys(keys string) {
	tb.t.Helper()
	for _, r := range keys {
		events := kb.Encode(r)
		down, up := *events[0], *events[len(events)-1]
		if len(events) == 3 {
			down.Text, down.UnmodifiedText = events[1].Text, events[1].UnmodifiedText
		}
		for _, e := range []input.DispatchKeyEventParams{down, up} {
			if _, err := chromedp.Call(tb.ctx, input.DispatchKeyEvent, e); err != nil {
				tb.t.Fatal(err)
			}
		}
	}
}

// look sets the size of the window and the colors that the system prefers, without motion.
func (tb *tab) look(width, height int64, dark bool) {
	tb.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	if _, err := chromedp.Call(tb.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	}); err != nil {
		tb.t.Fatal(err)
	}
	tb.do(chromedp.EmulateViewport(width, height))
}

// readFile returns the text of a file that npm installs.
func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		if required() {
			t.Fatal(err)
		}
		t.Skipf("%v (npm ci installs it)", err)
	}
	return string(text)
}

// dial connects to an address.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// eval returns the value of a JavaScript expression.
func eval[T any](tb *tab, expression string) T {
	tb.t.Helper()
	v, err := chromedp.Run(tb.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		tb.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// do runs steps, and ends the test if one fails.
func (tb *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	if err := chromedp.Do(tb.ctx, steps...); err != nil {
		tb.t.Fatal(err)
	}
}
