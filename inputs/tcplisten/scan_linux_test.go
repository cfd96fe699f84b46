package tcplisten

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/inet"
)

// scanAfter scans after the given time, and reports whether the sockets differ from those of
// the last gather.
func (o *observer) scanAfter(after time.Duration) bool {
	o.pass(after)
	return o.scan(o.t.Context(), o.now)
}

func TestScanSeesWhatDoesNotLastUntilTheGather(t *testing.T) {
	o := observe(t, ruledOptions())
	if o == nil {
		return
	}
	o.wants(0)
	if o.scanAfter(time.Second) {
		t.Error("a scan differs, though nothing has changed")
	}
	short := service(t, "short", "127.0.0.1", 4002)
	if !o.scanAfter(time.Second) {
		t.Fatal("a scan does not see a new listener")
	}
	seen := o.now.Time
	short.End()
	if o.scanAfter(time.Second) {
		t.Error("a scan differs, though all is as at the last gather")
	}
	e := o.wants(8*time.Second, "opened 127.0.0.1:4002 expected=forbidden")
	if got, want := e[0].Time, seen; !got.Equal(want) {
		t.Errorf("time %v, want that of the scan, %v", got, want)
	}
	if rule, owner := fieldText(e[0], "rule"), e[0].Tag("owner"); rule != "telnet" || owner != "exited" {
		t.Errorf("rule %q, owner %q", rule, owner)
	}
	o.wants(59 * time.Second)
	o.wants(time.Second, "closed 127.0.0.1:4002 expected=forbidden")
}

func TestScanIsFollowedByAGatherThatFindsTheOwner(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	o.wants(0)
	o.scanAfter(5 * time.Second)
	web := service(t, "web", "127.0.0.1", 4000)
	for range 3 { // until the gather has started
		if !o.scanAfter(time.Second) {
			t.Fatal("a scan does not differ")
		}
	}
	e := o.wants(0, "opened 127.0.0.1:4000 web")
	if window := fieldText(e[0], "window_seconds"); window != "3" {
		t.Errorf("window_seconds %s, want the time since the last scan that found all as it was", window)
	}
	web.End()
	if !o.scanAfter(time.Second) {
		t.Error("a scan does not see that a listener has closed")
	}
	o.wants(0)
	o.wants(time.Minute, "closed 127.0.0.1:4000 web")
}

func TestScanSeesARestart(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	web := service(t, "web", "127.0.0.1", 4000)
	o.wants(0)
	web.End()
	service(t, "web", "127.0.0.1", 4000)
	if !o.scanAfter(time.Second) {
		t.Error("a scan does not see another socket")
	}
	o.wants(0, "restarted 127.0.0.1:4000 web")
}

func TestScanOfNamespaces(t *testing.T) {
	options := eventOptions()
	options.Namespaces = true
	o := observe(t, options)
	if o == nil {
		return
	}
	ip(t, "netns add other")
	ip(t, "-n other link set lo up")
	mounted, err := os.Open("/run/netns/other")
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	o.wants(0)
	short := startInNamespace(t, mounted, task{Name: []byte("short"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	if err := short.Hear(new([]int)); err != nil {
		t.Fatal(err)
	}
	if !o.scanAfter(time.Second) {
		t.Error("a scan does not see a listener of another namespace")
	}
	short.End()
	o.wants(time.Second, "opened other/127.0.0.1:4000")
}

func TestGatherDoesNotWaitForAScan(t *testing.T) {
	in := open(t, Defaults()).(*input)
	gather(t, in)
	scanning, interrupted := make(chan struct{}), make(chan error)
	go func() { // a scan that hangs until it is interrupted
		in.scans.mu.Lock()
		defer in.scans.mu.Unlock()
		ctx, cancel := context.WithCancel(context.Background())
		in.scans.interrupt.Store(&cancel)
		defer in.scans.interrupt.Store(nil)
		close(scanning)
		select {
		case <-ctx.Done():
			interrupted <- nil
		case <-time.After(30 * time.Second):
			interrupted <- context.DeadlineExceeded
		}
	}()
	<-scanning
	done := make(chan struct{})
	go func() {
		defer close(done)
		gather(t, in)
	}()
	if err := <-interrupted; err != nil {
		t.Fatal("the gather waits: ", err)
	}
	<-done
}

func TestShortLivedListenersBeyondTheLimitAreLogged(t *testing.T) {
	if testing.Short() {
		t.Skip("handles thousands of listeners")
	}
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	o.wants(0)
	host := o.listeners.tables[0]
	for i := range maxShortLived + 3 {
		s := inet.Socket{Cookie: uint64(1000 + i), Inode: 1, Addr: netip.MustParseAddr("127.0.0.1"), Port: uint16(1000 + i)}
		for range 2 { // scans see the same socket again
			if l, isNew := o.scans.shortLived.add(host, &s, o.newListener); isNew {
				l.seen = o.now.Time
			}
		}
	}
	if got := len(o.scans.shortLived.listeners); got != maxShortLived {
		t.Errorf("%d listeners are kept, want %d", got, maxShortLived)
	}
	o.gatherAfter(time.Second)
	if want := fmt.Sprintf("limit=%d", maxShortLived); !strings.Contains(o.log.String(), want) {
		t.Errorf("%q is not logged: %s", want, o.log)
	}
}

func TestWatchAsksForAGather(t *testing.T) {
	options := Defaults()
	options.ScanInterval = plugin.Duration(100 * time.Millisecond)
	o := observe(t, options)
	if o == nil {
		return
	}
	gather(t, o.input)
	ctx, stop := context.WithCancel(t.Context())
	asked, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		o.Watch(ctx, func() {
			select {
			case asked <- struct{}{}:
			default:
			}
		})
	}()
	service(t, "web", "127.0.0.1", 4000)
	select {
	case <-asked:
	case <-time.After(30 * time.Second):
		t.Error("no gather was asked for")
	}
	stop()
	<-ended
}
