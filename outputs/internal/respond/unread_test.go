package respond

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheClientReadingLongestIsDisconnected(t *testing.T) {
	u := newUnread(100)
	var cut []string
	begin := func(name string, body []byte) func() {
		return u.begin(body, func() { cut = append(cut, name) })
	}
	page := make([]byte, 60)
	first, second := begin("first", page), begin("second", page) // they count once
	begin("third", make([]byte, 40))
	if len(cut) > 0 {
		t.Errorf("%q are cut off though all fits", cut)
	}
	second()
	second()
	begin("fourth", make([]byte, 50))
	if diff := cmp.Diff([]string{"first"}, cut); diff != "" {
		t.Errorf("cut off (-want +got):\n%s", diff)
	}
	first() // has nothing left to end
	fifth := begin("fifth", make([]byte, 500))
	if diff := cmp.Diff([]string{"first", "third", "fourth"}, cut); diff != "" {
		t.Errorf("cut off (-want +got):\n%s", diff)
	}
	if u.bytes != 500 {
		t.Errorf("%d bytes are counted, want 500", u.bytes)
	}
	fifth()
	if u.bytes != 0 || len(u.reads) != 0 || len(u.readers) != 0 {
		t.Errorf("%d bytes of %d reads of %d bodies are left", u.bytes, len(u.reads), len(u.readers))
	}
}
