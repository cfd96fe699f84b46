package livepage

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

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
