package procfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/inet"
)

// BindV6Only tells whether IPv6 sockets take no IPv4 unless they ask for it.
func (f *FS) BindV6Only() (bool, error) {
	text, err := f.readFile(f.dir, "sys/net/ipv6/bindv6only", 64)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // a kernel without IPv6
	}
	return err == nil && bytes.HasPrefix(text, []byte("1")), err
}

// NetNS returns the number of the network namespace of the process with that pid.
func (f *FS) NetNS(pid int) (uint64, error) {
	link, err := f.readLink(f.dir, append(strconv.AppendInt(nil, int64(pid), 10), "/ns/net"...))
	if err != nil {
		return 0, f.processError(pid, "ns/net", err)
	}
	inode, ok := parseLink(link, "net:[")
	if !ok {
		return 0, fmt.Errorf("read %s/%d/ns/net: a link to %q", f.host.Proc, pid, link)
	}
	return inode, nil
}

// TCP calls each for the TCP sockets in one state that the network namespace
// holds in which that process of /proc lives: "self" or a pid.
//
// The kernel prints the tables in pieces, and goes on in the middle of a hash
// bucket by the number of sockets it has been through: where one of those was
// closed meanwhile, it passes over another one. Different passes, from 0 on, read
// pieces of other sizes, and so miss others.
func (f *FS) TCP(process string, established bool, pass int, each func(*inet.Socket)) error {
	for _, table := range []string{"tcp", "tcp6"} {
		err := f.table(process+"/net/"+table, established, pass, each)
		if table == "tcp6" && errors.Is(err, fs.ErrNotExist) {
			return nil // a kernel without IPv6
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// table reads one table. The kernel prints the listeners first: what comes after
// them is read only where it is asked for.
func (f *FS) table(name string, established bool, pass int, each func(*inet.Socket)) error {
	fd, err := unix.Openat(f.dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: f.host.Proc + "/" + name, Err: err}
	}
	defer unix.Close(fd)
	title := true
	rest := 0
	buf := make([]byte, 16<<10)
	piece := 4096 - 500*(pass%4) // a page is the most there is at once
	var s inet.Socket
	for {
		n, err := unix.Read(fd, buf[rest:min(rest+piece, len(buf))])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "read", Path: f.host.Proc + "/" + name, Err: err}
		}
		if n == 0 && rest > 0 {
			return fmt.Errorf("read %s/%s: the last row has no end", f.host.Proc, name)
		}
		if n == 0 {
			return nil
		}
		text := buf[:rest+n]
		for {
			line, after, whole := bytes.Cut(text, []byte{'\n'})
			if !whole {
				break
			}
			text = after
			if title {
				title = false
				continue
			}
			state, err := parseRow(line, &s)
			if err != nil {
				return fmt.Errorf("read %s/%s: %w", f.host.Proc, name, err)
			}
			switch {
			case state == stateListen && !established, state == stateEstablished && established:
				each(&s)
			case state != stateListen && !established:
				return nil
			}
		}
		if rest = copy(buf, text); rest == len(buf) {
			return fmt.Errorf("read %s/%s: a row of more than %d bytes", f.host.Proc, name, rest)
		}
	}
}

// LocalAddresses returns the addresses of the interfaces that are up in the
// network namespace of that process of /proc. It does not tell the interfaces.
func (f *FS) LocalAddresses(process string) ([]inet.Address, error) {
	var all []inet.Address
	add := func(a netip.Addr, ok bool) {
		if ok && !slices.Contains(all, inet.Address{Addr: a}) {
			all = append(all, inet.Address{Addr: a})
		}
	}
	var trie fibTrie
	for _, source := range []struct {
		name  string
		parse func([]byte) (netip.Addr, bool)
	}{{"fib_trie", trie.line}, {"if_inet6", parseIfInet6}} {
		file, err := os.Open(f.host.Proc + "/" + process + "/net/" + source.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without that family
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			add(source.parse(lines.Bytes()))
		}
		file.Close()
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", file.Name(), err)
		}
	}
	return all, nil
}
