package livepage

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/respond"
)

func TestPagesAreMadeOncePerChange(t *testing.T) {
	var c pageCache
	first, second := make(chan struct{}), make(chan struct{})
	var made []string
	get := func(key pageKey, generation <-chan struct{}) {
		t.Helper()
		want := fmt.Sprint(key)
		page, err := c.get(key, generation, func() (*respond.Response, error) {
			made = append(made, want)
			return &respond.Response{Body: []byte(want)}, nil
		})
		if err != nil || string(page.Body) != want {
			t.Errorf("%v: %q, %v", key, page.Body, err)
		}
	}
	for range 2 {
		get(pageKey{query: "a"}, first)
		get(pageKey{query: "a", trusted: true}, first)
		get(pageKey{query: "a", gzip: true}, first)
	}
	get(pageKey{query: "a"}, second)
	want := []string{"{a false false}", "{a true false}", "{a false true}", "{a false false}"}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}
	for i := range 100 {
		get(pageKey{query: fmt.Sprint(i)}, second)
	}
	if len(c.pages) != maxCachedPages {
		t.Errorf("%d pages are kept, want %d", len(c.pages), maxCachedPages)
	}
	if page, err := c.get(pageKey{query: "b"}, second, func() (*respond.Response, error) { return nil, errorText("no") }); err == nil {
		t.Errorf("the error is lost: %v", page)
	}
}

func TestNothingIsKeptWithoutReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := five()
		board.events = []metric.Point{change(1, "opened", web)}
		p := pageOf(board)
		kept := func() []bool {
			p.snapshots.mu.Lock()
			defer p.snapshots.mu.Unlock()
			p.timelines.mu.Lock()
			defer p.timelines.mu.Unlock()
			p.cached.mu.Lock()
			defer p.cached.mu.Unlock()
			return []bool{p.snapshots.last != nil, p.timelines.last != nil, p.cached.pages != nil}
		}
		for range 3 {
			body(t, get(p, "/"))
			time.Sleep(keepFor - 1)
			if diff := cmp.Diff([]bool{true, true, true}, kept()); diff != "" {
				t.Errorf("kept for the next reader (-want +got):\n%s", diff)
			}
		}
		time.Sleep(keepFor)
		synctest.Wait()
		if diff := cmp.Diff([]bool{false, false, false}, kept()); diff != "" {
			t.Errorf("kept for nobody (-want +got):\n%s", diff)
		}
		body(t, get(p, "/"))
	})
}
