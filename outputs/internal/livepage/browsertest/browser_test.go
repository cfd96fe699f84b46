package browsertest

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// timeout ends every test that waits for something that does not come.
const timeout = time.Minute

// A tab is one tab of a Chromium of its own.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string // of the console, CSP and exceptions
	requests []string // URLs
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
			t.Error("console: ", p)
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

// do runs steps, and ends the test if one fails.
func (tb *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	if err := chromedp.Do(tb.ctx, steps...); err != nil {
		tb.t.Fatal(err)
	}
}
