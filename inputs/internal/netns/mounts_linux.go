package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/host"
)

// namedDir is where iproute2 mounts named namespaces.
const namedDir = "/run/netns"

// mounts are the network namespaces that are mounted in the mount namespace of the host's
// root, and their names. They are read again if the kernel reports a change of mounts, if
// the directory namedDir has changed, and from time to time.
type mounts struct {
	host      host.Host
	refresh   time.Duration
	info      *os.File    // mountinfo; nil until the first update
	named     time.Time   // modification time of namedDir
	read      time.Time   // when they were last read
	locations []*location // those with a mount or a name
}

func (m *mounts) close() error {
	if m.info == nil {
		return nil
	}
	return m.info.Close()
}

// update updates the mounts and names of the locations. locationOf returns the location
// with a number.
func (m *mounts) update(ctx context.Context, now time.Time, locationOf func(number uint64) *location) error {
	if !m.changed(now) {
		return nil
	}
	found, err := m.readMountinfo(ctx)
	if err != nil {
		m.read = time.Time{} // read again at the next update
		return fmt.Errorf("mounted namespaces: %w", err)
	}
	names, err := m.readNames()
	if err != nil {
		m.read = time.Time{}
		return fmt.Errorf("named namespaces: %w", err)
	}
	m.read = now
	for _, p := range m.locations {
		p.mount, p.name = ref{}, ""
	}
	m.locations = m.locations[:0]
	for _, f := range append(names, found...) { // the first one counts, so those with a name come first
		p := locationOf(f.number)
		if p.mount.mount == "" {
			p.mount, p.name = f.ref, f.name
			m.locations = append(m.locations, p)
		}
	}
	return nil
}

// adopt replaces the location old by another one.
func (m *mounts) adopt(old, location *location) {
	if i := slices.Index(m.locations, old); i >= 0 {
		m.locations[i] = location
	}
}

// changed reports whether mounts and names have to be read again.
func (m *mounts) changed(now time.Time) bool {
	info, err := os.Stat(path.Join(m.host.Root, namedDir))
	named := time.Time{}
	if err == nil {
		named = info.ModTime()
	}
	changed := m.read.IsZero() || now.Sub(m.read) >= m.refresh || !named.Equal(m.named)
	m.named = named
	if m.info == nil {
		return true
	}
	poll := []unix.PollFd{{Fd: int32(m.info.Fd()), Events: unix.POLLPRI}}
	n, err := unix.Poll(poll, 0) // reports each change once
	return changed || n != 0 || err != nil
}

// A mountedNetNS is a file that is a network namespace.
type mountedNetNS struct {
	number uint64
	ref    ref
	name   string
}

func (m *mounts) readMountinfo(ctx context.Context) (all []mountedNetNS, err error) {
	if m.info == nil {
		name := "/proc/thread-self/mountinfo"
		if m.host.Root != "/" {
			name = m.host.Proc + "/1/mountinfo"
		}
		if m.info, err = os.Open(name); err != nil {
			if isRefused(err) {
				return nil, nil // the mounts of another host's procfs may be hidden
			}
			return nil, err
		}
	}
	if _, err := m.info.Seek(0, 0); err != nil {
		return nil, err
	}
	err = lineReader{file: m.info, piece: 4096}.read(ctx, func(line []byte) (bool, error) {
		if number, path, ok := parseMount(line); ok {
			r := ref{fd: -1, mount: path}
			n, err := r.number(m.host)
			if isExhausted(err) {
				return false, err
			}
			if err == nil && n == number { // nothing else is mounted over it
				all = append(all, mountedNetNS{number: number, ref: r})
			}
		}
		return true, nil
	})
	return all, err
}

// readNames reads namedDir. It ignores files there that are not network namespaces.
func (m *mounts) readNames() (all []mountedNetNS, err error) {
	entries, err := os.ReadDir(path.Join(m.host.Root, namedDir)) // sorted
	if errors.Is(err, fs.ErrNotExist) || isRefused(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		r := ref{fd: -1, mount: path.Join(namedDir, e.Name())}
		if number, err := r.networkNumber(m.host); err == nil {
			all = append(all, mountedNetNS{number: number, ref: r, name: escape.Name([]byte(e.Name()))})
		} else if isExhausted(err) {
			return nil, err
		}
	}
	return all, nil
}
