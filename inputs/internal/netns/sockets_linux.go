package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/sockdiag"
)

// A State is one state of TCP sockets.
type State uint8

// The states that can be listed.
const (
	Listen State = iota
	Established
)

// A Source says how sockets were listed.
type Source struct {
	Procfs bool  // by procfs: without cookies, devices, cgroups and limits of backlogs
	Reason error // why not by netlink; nil if procfs was asked for
}

// sockets lists the sockets of one namespace.
type sockets struct {
	location *location
	backend  string
	diag     *sockdiag.Conn // nil if the namespace has to be entered
	refused  error          // why it is listed by procfs for good
	source   Source         // of the last listing
	err      error
	rest     time.Time // before it nothing is listed again
	found    int       // how many listeners the last dump found
}

// A listing is what Namespace.Dump is asked for.
type listing struct {
	state State
	pass  int
	begin func()
	visit func(*inet.Socket)
}

// list does a listing. One that fails because it takes too long is followed by a rest,
// so that whoever owns the namespace does not take the time of the others every time.
func (s *sockets) list(ctx context.Context, l listing) (Source, error) {
	if time.Now().Before(s.rest) {
		return s.source, s.err
	}
	began := time.Now()
	s.source, s.err = s.listNow(ctx, l)
	if took := time.Since(began); s.err != nil && took > cheapRead {
		s.rest = began.Add(restFactor * took)
	}
	return s.source, s.err
}

func (s *sockets) listNow(ctx context.Context, l listing) (Source, error) {
	if l.state == Listen {
		s.count(&l)
	}
	if s.backend != Procfs && s.refused == nil {
		err := s.listNetlink(ctx, l)
		if err == nil || s.backend == Netlink || !isUnanswered(err) {
			return Source{}, err
		}
		s.refused = err
	}
	return Source{Procfs: true, Reason: s.refused}, s.listProcfs(ctx, l)
}

// count counts the listeners.
func (s *sockets) count(l *listing) {
	begin, visit := l.begin, l.visit
	l.begin = func() {
		s.found = 0
		begin()
	}
	l.visit = func(socket *inet.Socket) {
		s.found++
		visit(socket)
	}
}

func (s *sockets) isOpen() bool { return s.diag != nil }

func (s *sockets) close() {
	if s.diag != nil {
		s.diag.Close()
		s.diag = nil
	}
}

func (s *sockets) listNetlink(ctx context.Context, l listing) error {
	if s.diag == nil {
		diag, err := sockdiag.Open(s.location.enter)
		if err != nil {
			return err
		}
		s.diag = diag
	}
	states := sockdiag.Listen
	if l.state == Established {
		states = sockdiag.Established
	}
	return s.diag.Dump(ctx, states, l.pass, l.begin, l.visit)
}

// isUnanswered reports whether the kernel, or a filter before it, does not answer to
// netlink at all, or does not let the program into a namespace.
func isUnanswered(err error) bool {
	return slices.ContainsFunc([]error{
		unix.EPERM, unix.EACCES, unix.ENOSYS, unix.ENOENT, unix.EINVAL,
		unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP,
	}, func(e error) bool { return errors.Is(err, e) })
}

// maxListeners bounds the memory that a listing by procfs takes.
const maxListeners = 1 << 18

func (s *sockets) listProcfs(ctx context.Context, l listing) error {
	l.begin()
	if l.state == Established {
		return s.readTables(ctx, l)
	}
	var found []inet.Socket
	visit := l.visit
	l.visit = func(socket *inet.Socket) { found = append(found, *socket) }
	if err := s.readTables(ctx, l); err != nil {
		return err
	}
	v6only, err := s.bindsV6Only()
	if err != nil {
		return err
	}
	inet.GuessV6Only(found, v6only)
	for i := range found {
		visit(&found[i])
	}
	return nil
}

func (s *sockets) readTables(ctx context.Context, l listing) error {
	rows := 0
	for _, name := range []string{"tcp", "tcp6"} {
		file, err := s.location.openTable(name)
		if name == "tcp6" && errors.Is(err, fs.ErrNotExist) {
			return nil // a kernel without IPv6
		}
		if err != nil {
			return err
		}
		err = l.readTable(ctx, file, &rows)
		file.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// readTable reads one table. The kernel prints the listeners first: what comes after
// them is read only if it is asked for.
func (l *listing) readTable(ctx context.Context, file *os.File, rows *int) error {
	title := true
	var socket inet.Socket
	r := lineReader{file: file, piece: 4096 - 500*(l.pass%4)}
	return r.read(ctx, func(line []byte) (more bool, err error) {
		if title {
			title = false
			return true, nil
		}
		state, err := parseRow(line, &socket)
		if err != nil {
			return false, err
		}
		switch {
		case l.state == Listen && state == stateListen:
			if *rows++; *rows > maxListeners {
				return false, fmt.Errorf("more than %d listeners", maxListeners)
			}
			l.visit(&socket)
		case l.state == Listen:
			return false, nil
		case state == stateEstablished:
			l.visit(&socket)
		}
		return true, nil
	})
}

// bindsV6Only reports whether IPv6 sockets take no IPv4 unless they ask for it. Of
// other namespaces than the program's own nobody can read that; it is off by default.
func (s *sockets) bindsV6Only() (bool, error) {
	if !s.location.own {
		return false, nil
	}
	text, err := os.ReadFile("/proc/sys/net/ipv6/bindv6only")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // a kernel without IPv6
	}
	return err == nil && strings.HasPrefix(string(text), "1"), err
}
