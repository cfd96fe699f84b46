package livepage

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

func TestPageOfAListener(t *testing.T) {
	board := boardOf(listener(443, "nginx"), listener(80, "nginx"))
	board.events = []metric.Point{change(1, "opened", web), change(2, "opened", []string{"address", "0.0.0.0", "port", "80"}), change(3, "restarted", web)}
	var asked []string
	board.details = func(_ context.Context, source string, p *metric.Point) ([]plugin.DetailSection, error) {
		asked = append(asked, source+" "+p.Tag("port"))
		return []plugin.DetailSection{{Title: "Holder 1 of 2", Details: []plugin.Detail{{Name: "exe", Value: "/usr/sbin/nginx", Sensitive: true}, {Name: "threads", Value: "4"}}}}, nil
	}
	p := pageOf(board)
	id := p.snapshot().rows[1].ID
	elements := parse(t, body(t, get(p, "/listener/"+id, "Authorization", "x")))
	facts := map[string]string{}
	var events []string
	for _, e := range elements {
		if e.Data == "dt" && e.Parent.Parent.Data == "section" {
			facts[textOf(e)] = textOf(e.NextSibling)
		}
		if e.Data == "li" {
			events = append(events, attribute(e, "class"))
		}
	}
	want := map[string]string{
		"address": "0.0.0.0", "port": "443", "family": "ipv4", "process": "nginx", "user": "root", "unit": "nginx.service", "exposure": "public", "owner": "resolved",
		"sockets": "1", "processes": "2", "uid": "0", "pid": "1443", "backlog": "3", "backlog_limit": "128", "first_seen_time_seconds": "2026-11-22 10:00:00", "exe": "/usr/sbin/nginx", "threads": "4",
	}
	if diff := cmp.Diff(want, facts); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"event-restarted", "event-opened"}, events); diff != "" {
		t.Errorf("changes of the endpoint (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"tcp_listen 443"}, asked); diff != "" {
		t.Errorf("the input is asked about (-want +got):\n%s", diff)
	}
}

func TestListenerThatHasGoneIs404(t *testing.T) {
	p := pageOf(five())
	for _, id := range []string{"", "0", "x/y", "%00", strings.Repeat("0", 32)} {
		if r := get(p, "/listener/"+id); r.StatusCode != http.StatusNotFound || r.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%q: status %d, %s", id, r.StatusCode, r.Header.Get("Content-Type"))
		}
	}
}

// A bookmark that is opened while a gather fails, or right after a start, does not say that the
// listener has been closed.
func TestListenerIsNotGoneWhileListenersAreNotKnown(t *testing.T) {
	id := pageOf(five()).snapshot().rows[0].ID
	failed := five()
	failed.latest = []*metric.Batch{{Source: "sockwatch", Time: at}}
	failed.sources[0].Err = errorText("inner")
	for _, test := range []struct {
		name       string
		board      *fakeBoard
		wantStatus int
		want       string
	}{
		{name: "failed", board: failed, wantStatus: 503, want: "The listeners of tcp_listen are not known: its last gather failed."},
		{name: "nothing gathered", board: &fakeBoard{}, wantStatus: 503, want: "Nothing has been gathered yet."},
		{name: "beyond the limit", board: boardOf(beyondLimit("root", 20)), wantStatus: 404,
			want: "20 more listeners of tcp_listen are not shown: it reports at most max_listeners."},
	} {
		r := get(pageOf(test.board), "/listener/"+id)
		text, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != test.wantStatus {
			t.Errorf("%s: status %d, %v", test.name, r.StatusCode, err)
		}
		if s := string(text); !strings.Contains(s, test.want) || strings.Contains(s, "has been closed") {
			t.Errorf("%s: page\n%s\ndoes not say %q", test.name, s, test.want)
		}
	}
}

func TestListenerWithoutChangesSaysSo(t *testing.T) {
	p := pageOf(boardOf(listener(80, "nginx")))
	elements := parse(t, body(t, get(p, "/listener/"+p.snapshot().rows[0].ID)))
	if got, want := textOf(byID(t, elements, "timeline")), "What changed No changes. all changes of this address and port"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDetailsThatCannotBeReadLeaveTheRest(t *testing.T) {
	board := five()
	board.details = func(ctx context.Context, _ string, _ *metric.Point) ([]plugin.DetailSection, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("the input is asked without a deadline")
		}
		return nil, errorText("the gather hangs")
	}
	p := pageOf(board)
	path := "/listener/" + p.snapshot().rows[0].ID
	for header, want := range map[string]string{"": "The details cannot be read.", "x": "The details cannot be read: the gather hangs."} {
		if page := body(t, get(p, path, "Authorization", header)); !strings.Contains(page, want) || !strings.Contains(page, "sshd") {
			t.Errorf("the page has no %q, or not the rest:\n%s", want, page)
		}
	}
}

// TestDetailsAreReadForTwoReadersAtATime, because they may be expensive. Further readers
// wait, at most as long as for an input that hangs.
func TestDetailsAreReadForTwoReadersAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := five()
		var reading atomic.Int32
		board.details = func(ctx context.Context, _ string, _ *metric.Point) ([]plugin.DetailSection, error) {
			reading.Add(1)
			<-ctx.Done()
			reading.Add(-1)
			return nil, ctx.Err()
		}
		p := pageOf(board)
		path := "/listener/" + p.snapshot().rows[0].ID
		start := time.Now()
		pages := make(chan string, 5)
		for range cap(pages) {
			go func() { pages <- body(t, get(p, path, "Authorization", "x")) }()
		}
		synctest.Wait()
		if n := reading.Load(); n != maxDetails {
			t.Errorf("details are read for %d readers, want %d", n, maxDetails)
		}
		failed := 0
		for range cap(pages) {
			failed += strings.Count(<-pages, "The details cannot be read: ")
		}
		if took := time.Since(start); failed != cap(pages) || took != detailsTimeout {
			t.Errorf("%d pages without details after %v, want %d after %v", failed, took, cap(pages), detailsTimeout)
		}
	})
}
