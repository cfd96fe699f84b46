package owner

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/bpf"
	"sockwatch/inputs/internal/procfs"
)

// searchKernel makes newFinder use package bpf. TestKernelFindsTheSame sets it.
var searchKernel bool

// openFiles returns the files that package bpf lists, or skips the test if that is not
// permitted or not supported.
func openFiles(t testing.TB) Files {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		t.Fatal(err)
	}
	files, err := bpf.OpenHolders(uint32(st.Ino))
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := files.Close(); err != nil {
			t.Error(err)
		}
	})
	return files
}

// TestKernelFindsTheSame runs the tests with real processes again, with package bpf.
func TestKernelFindsTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("runs most tests of the search again")
	}
	openFiles(t)
	searchKernel = true
	defer func() { searchKernel = false }()
	for name, test := range map[string]func(*testing.T){
		"ManyHoldersAreCounted": TestManyHoldersAreCounted,
		"Exit":                  TestExit,
		"Verify":                TestVerify,
		"Refresh":               TestRefresh,
		"Near":                  TestNear,
		"FirstThreadEnded":      TestFirstThreadEnded,
		"Exec":                  TestExec,
		"Share":                 TestShare,
		"IOURing":               TestIOURing,
		"ThreadsFiles":          TestThreadsFiles,
		"ThreadsFilesAreCopies": TestThreadsFilesAreCopies,
		"InFlight":              TestInFlight,
		"Handover":              TestHandover,
		"NoneIsProven":          TestNoneMeansProvenUnowned,
		"Unowned":               TestUnowned,
	} {
		t.Run(name, test)
	}
}

// TestKernelSearchBeginsAgainAfterTheDeadline reports why the search has not ended, and ends
// it in the next Update.
func TestKernelSearchBeginsAgainAfterTheDeadline(t *testing.T) {
	options := rarely()
	options.Files = openFiles(t)
	f := newFinder(t, options)
	file, s := listen(t)
	defer file.Close()
	f.Add(s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := f.Update(ctx, time.Now()); !strings.HasPrefix(r.Partial, "owners: stopped by the deadline after 0 of ") || s.Status != Pending || r.FilesLost != nil {
		t.Errorf("partial %q, status %v, lost %v", r.Partial, s.Status, r.FilesLost)
	}
	if r := f.Update(t.Context(), time.Now()); r.Partial != "" || s.Status != Resolved {
		t.Errorf("then: partial %q, status %v, want none, resolved", r.Partial, s.Status)
	}
}

// brokenFiles fail.
type brokenFiles struct {
	Files
	err error
}

func (b brokenFiles) Verify(context.Context, []procfs.File, func(int, procfs.State)) error {
	return b.err
}

func (b brokenFiles) Sockets(ctx context.Context, visit func(procfs.File, procfs.State)) error {
	return b.err
}

// TestKernelWithoutDescriptorsIsAskedAgain keeps asking the kernel after an error that passes.
func TestKernelWithoutDescriptorsIsAskedAgain(t *testing.T) {
	options := rarely()
	options.Files = brokenFiles{err: unix.EMFILE}
	f := newFinder(t, options)
	file, s := listen(t)
	defer file.Close()
	f.Add(s)
	r := f.Update(t.Context(), time.Now())
	if !errors.Is(r.OutOfResources, unix.EMFILE) || r.FilesLost != nil || s.Status != Pending {
		t.Errorf("out of resources: %v, lost %v, status %v", r.OutOfResources, r.FilesLost, s.Status)
	}
	if f.options.Files == nil {
		t.Error("the kernel is not asked again")
	}
}

// TestProcfsIsSearchedIfTheKernelFails finds the holder in procfs, says why, and does not ask
// the kernel again.
func TestProcfsIsSearchedIfTheKernelFails(t *testing.T) {
	broken := errors.New("broken")
	options := rarely()
	options.Files = brokenFiles{err: broken}
	f := newFinder(t, options)
	file, s := listen(t)
	defer file.Close()
	f.Add(s)
	if r := f.Update(t.Context(), time.Now()); !errors.Is(r.FilesLost, broken) || s.Status != Resolved {
		t.Errorf("lost %v, status %v, want %v, resolved", r.FilesLost, s.Status, broken)
	}
	other, second := listen(t)
	defer other.Close()
	f.Add(second)
	if r := f.Update(t.Context(), time.Now()); r.FilesLost != nil || second.Status != Resolved {
		t.Errorf("then: lost %v, status %v, want nil, resolved", r.FilesLost, second.Status)
	}
}
