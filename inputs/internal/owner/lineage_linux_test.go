package owner

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLineage(t *testing.T) {
	for _, test := range []struct {
		name   string
		parent string // lines of stat: "" if the parent is gone
		start  uint64 // of the parent
		login  string
		want   Lineage
	}{
		{
			name: "a shell of somebody who logged in", parent: "bash", start: 50, login: "1000",
			want: Lineage{ParentPID: 40, ParentComm: "bash", ParentExe: "/usr/bin/bash", LoginUID: 1000, HasLogin: true},
		},
		{
			name: "a service", parent: "systemd", start: 1, login: "4294967295",
			want: Lineage{ParentPID: 40, ParentComm: "systemd", ParentExe: "/usr/bin/bash", LoginUID: 4294967295},
		},
		{name: "the parent is gone", want: Lineage{ParentPID: 40}},
		{name: "the parent's pid is another's by now", parent: "later", start: 500, want: Lineage{ParentPID: 40}},
		{
			name: "the parent has a hostile name", parent: "a\nb", start: 50,
			want: Lineage{ParentPID: 40, ParentComm: `a\x0ab`, ParentExe: "/usr/bin/bash"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHost(t)
			h.process(70, 100, "/system.slice/x.service", 9)
			h.write("70/stat", fmt.Sprintf("70 (x) S 40 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0\n", 100))
			if test.login != "" {
				h.write("70/loginuid", test.login)
			}
			if test.parent != "" {
				h.process(40, test.start, "/")
				h.write("40/stat", fmt.Sprintf("40 (%s) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0\n", test.parent, test.start))
				if err := os.Symlink("/usr/bin/bash", filepath.Join(h.path, "40/exe")); err != nil {
					t.Fatal(err)
				}
			}
			f := h.finder(rarely())
			s := &Socket{Inode: 9}
			f.Add(s)
			f.Update(t.Context(), time.Now())
			if s.Named() == nil {
				t.Fatalf("no holder: %v", s.Status)
			}
			got := f.Lineage(s.Named())
			if diff := cmp.Diff(&test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			h.write("70/stat", "70 (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0\n")
			if again := f.Lineage(s.Named()); again != got {
				t.Error("it changes when the parent exits")
			}
		})
	}
}

func TestAProcessThatHasExitedHasNoLineage(t *testing.T) {
	h := newFakeHost(t)
	h.process(70, 100, "/", 9)
	f := h.finder(rarely())
	s := &Socket{Inode: 9}
	f.Add(s)
	f.Update(t.Context(), time.Now())
	h.process(70, 200, "/") // its pid belongs to another process
	if got := f.Lineage(s.Named()); got != nil {
		t.Errorf("%+v", got)
	}
}
