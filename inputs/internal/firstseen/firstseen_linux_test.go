package firstseen

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, "tcp_listen")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pass makes one pass over identities that are there at a time, and returns when
// each was first seen.
func pass(s *Store, incomplete bool, now int64, keys ...string) (since []int64) {
	s.Begin()
	for _, key := range keys {
		since = append(since, s.Seen(key, now))
	}
	s.End(incomplete)
	return since
}

func expect(t *testing.T, got []int64, want ...int64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("first seen %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("first seen %v, want %v", got, want)
			return
		}
	}
}

func TestTimeStaysThroughOneMissingPass(t *testing.T) {
	s := open(t, "")
	expect(t, pass(s, false, 0, "stood"), 0)
	expect(t, pass(s, false, 10, "stood", "opened"), 0, 10)
	pass(s, false, 20, "stood")
	if !s.Missing() {
		t.Error("nothing is missing")
	}
	expect(t, pass(s, false, 30, "stood", "opened"), 0, 10)
	pass(s, false, 40, "stood")
	pass(s, false, 50, "stood")
	if s.Missing() || s.Len() != 1 {
		t.Errorf("missing %v, %d remembered, want 1", s.Missing(), s.Len())
	}
	expect(t, pass(s, false, 60, "stood", "opened"), 0, 60)
}

// An identity of an earlier run waits for its owners to be known.
func TestIncompletePassKeepsWhatIsInherited(t *testing.T) {
	old := open(t, "")
	pass(old, false, 10, "a")
	s := old.Inherit("", "tcp_listen")
	for range 3 {
		pass(s, true, 20, "a without its owner")
	}
	expect(t, pass(s, false, 30, "a"), 10)
}

func TestStoreSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	pass(s, false, 0, "stood")
	pass(s, false, 10, "stood", "opened")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// What was there from the beginning is new to nobody, and not written.
	expect(t, pass(open(t, dir), false, 99, "stood", "opened"), 99, 10)
}

func TestDamagedFileIsSaid(t *testing.T) {
	tests := []struct{ text, want string }{
		{text: `{"version":1,"first_seen":{"a`, want: "unexpected EOF"},
		{text: `{"version":2}`, want: "version 2, expected 1"},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		path := filepath.Join(dir, "tcp_listen.first_seen.json")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, "tcp_listen")
		if want := "read " + path + ": " + tt.want; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		expect(t, pass(s, false, 5, "a"), 5)
	}
}

// A link that is planted where the file is read or written is not followed.
func TestPlantedLinkIsReplaced(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tcp_listen.first_seen.json")
	for _, name := range []string{path, path + ".new"} {
		if err := os.Symlink(victim, name); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(dir, "tcp_listen")
	if err == nil || !strings.Contains(err.Error(), "too many levels of symbolic links") {
		t.Errorf("opened with %v", err)
	}
	pass(s, false, 10, "a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
		t.Errorf("the link was followed: %q, %v", text, err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v", info.Mode())
	}
}

func TestPlantedFIFODoesNotHang(t *testing.T) {
	dir := t.TempDir()
	if err := mkfifo(filepath.Join(dir, "tcp_listen.first_seen.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, "tcp_listen"); err == nil {
		t.Error("a FIFO was read")
	}
}

// Nothing waits for a disk that is not responding, but Close, and that a moment.
func TestHungDiskHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		answer := make(chan struct{})
		s.write = func(path string, text []byte) error {
			<-answer
			return writeFile(path, text)
		}
		keys := []string{"a", "b", "c"}
		for i := range keys {
			pass(s, false, int64(i+1), keys[:i+1]...)
			if err := s.Save(time.Now()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * saveEvery)
		}
		if err := s.Close(); err == nil || err.Error() != "write "+s.path+": the disk is not responding" {
			t.Errorf("closed with %v", err)
		}
		close(answer)
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := open(t, dir).Len(); n != 3 {
			t.Errorf("%d are remembered, want 3", n)
		}
	})
}

func mkfifo(path string) error { return unix.Mkfifo(path, 0o600) }
