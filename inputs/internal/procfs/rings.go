package procfs

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// ringLink is the text of the link of an io_uring in /proc/PID/fd.
const ringLink = "anon_inode:[io_uring]"

// A ringFormat says how the kernel prints the files that are registered with an io_uring, in
// /proc/PID/fdinfo/FD (io_uring/fdinfo.c):
//
//	UserFiles:	3
//	    0: socket:[1045]
//	    2: /var/log/x
type ringFormat uint8

const (
	// ringNames is the format before 6.15: the last part of the path, unescaped, and
	// "<none>" for an empty slot. A socket is "TCP" or similar, without its inode. The list
	// is empty while the ring is busy.
	ringNames ringFormat = iota
	// ringPaths is the format of 6.15 to 6.17: whole paths, escaped, and no empty slots. The
	// list is empty while the ring is busy.
	ringPaths
	// ringWhole is the format from 6.18 on. Nothing is printed while the ring is busy.
	ringWhole
)

// ringFormatOf returns the format of a kernel release such as "6.18.2-generic". A release that
// cannot be parsed counts as old.
func ringFormatOf(release string) ringFormat {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return ringNames
	}
	switch {
	case major > 6 || major == 6 && minor >= 18:
		return ringWhole
	case major == 6 && minor >= 15:
		return ringPaths
	}
	return ringNames
}

// A ringParser parses the lines of an io_uring's fdinfo and calls visit for the sockets that
// it holds.
type ringParser struct {
	format  ringFormat
	visit   func(inode uint64)
	slots   int  // number of slots for files, as printed
	rows    int  // number of files listed so far
	listed  bool // the list of files has begun
	ends    int  // number of lines that look like the end of the list
	inside  bool // the next line is a file
	unknown bool // there may be a socket whose inode is not printed
}

// line parses one line, without its end.
func (r *ringParser) line(line []byte) {
	if slots, ok := bytes.CutPrefix(line, []byte("UserFiles:\t")); ok && !r.listed {
		var err error
		r.slots, err = strconv.Atoi(string(slots))
		r.listed, r.inside = err == nil, err == nil
		return
	}
	end := bytes.HasPrefix(line, []byte("UserBufs:"))
	if end {
		r.ends++
	}
	if !r.inside {
		return
	}
	slot, name, ok := strings.Cut(strings.TrimLeft(string(line), " "), ": ")
	number, err := strconv.Atoi(slot)
	// Before 6.15, a name may contain line ends. This is detected: the slot numbers are then
	// not consecutive, or the list has two ends.
	if !ok || err != nil || r.format == ringNames && number != r.rows {
		r.inside = false
		r.unknown = r.unknown || !end
		return
	}
	r.rows++
	if r.format == ringNames {
		r.unknown = r.unknown || name == "TCP" || name == "TCPv6" || name == "MPTCP" || name == "MPTCPv6"
	} else if inode, ok := parseLink([]byte(name), "socket:["); ok && inode != 0 {
		r.visit(inode)
	}
}

// known reports, after the last line, whether all sockets of the io_uring were visited.
func (r *ringParser) known() bool {
	switch {
	case !r.listed || r.unknown:
		return false
	case r.format == ringNames:
		return r.rows == r.slots && r.ends == 1
	case r.format == ringPaths:
		return r.rows > 0 || r.slots == 0
	}
	return true
}
