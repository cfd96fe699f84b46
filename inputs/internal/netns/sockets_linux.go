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

// A Source says where a list of sockets comes from.
type Source struct {
	Procfs bool  // procfs, which has no cookies, devices, cgroups or backlog limits
	Reason error // why it is not netlink; nil if procfs was asked for
}

// sockets lists the sockets of one namespace.
type sockets struct {
	location *location
	backend  string
	buf      []byte         // for diag, shared by all namespaces
	diag     *sockdiag.Conn // nil if the namespace has to be entered
	refused  error          // why only procfs is used from now on
	source   Source         // of the last listing
	err      error
	rest     time.Time // no listing before this time
	found    int       // number of listeners that the last dump found
}

// A listing holds the arguments of Namespace.Dump.
type listing struct {
	state State
	pass  int
	begin func()
	visit func(*inet.Socket)
}

// list lists the sockets. After a failure that took long, it returns the same error for a
// while without trying, so that the owner of a slow namespace cannot use up the time of the
// others at every gather.
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
		diag, err := sockdiag.Open(s.location.enter, s.buf)
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

// isUnanswered reports whether the kernel, or a system call filter, does not support or
// allow netlink at all, or does not let the program enter a namespace.
func isUnanswered(err error) bool {
	return slices.ContainsFunc([]error{
		unix.EPERM, unix.EACCES, unix.ENOSYS, unix.ENOENT, unix.EINVAL,
		unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP,
	}, func(e error) bool { return errors.Is(err, e) })
}

// maxListeners limits the memory of a listing by procfs.
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

// readTable reads one table. The kernel prints the listeners first, so the rest is read
// only for other states.
func (l *listing) readTable(ctx context.Context, file *os.File, rows *int) error {
	title := true
	var socket inet.Socket
	r := lineReader{file: file, piece: 4096 - 300*(l.pass%8)}
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

// bindsV6Only reports whether IPv6 sockets accept no IPv4 by default. This can be read only
// for the program's own namespace; for others it returns the kernel's default, false.
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
