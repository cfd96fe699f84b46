package procfs

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// A Stat is the parsed text of /proc/PID/stat.
type Stat struct {
	Comm  []byte // name of the process: any bytes, at most 15; part of the parsed text
	State byte   // 'R', 'S', 'Z', ...
	// Parent is the pid of its parent; 0 if that is none, or of another pid namespace.
	Parent int
	// Kernel reports that it is a kernel thread. No user can make a process look like one.
	Kernel bool
	Start  uint64 // when it started, in ticks of userHZ after boot
}

// A State is what package bpf reads of a process. As long as it stays the same, so do the name
// and the cgroups that procfs shows, but not always the program and the arguments.
type State struct {
	PID    int
	Start  uint64 // in nanoseconds of CLOCK_BOOTTIME
	Comm   [16]byte
	Cgroup uint64 // inode number of its cgroup v2 directory
	// CgroupSet identifies the cgroups of all hierarchies, as long as some process is in them.
	CgroupSet uint64
}

// kernelThread is PF_KTHREAD in include/linux/sched.h.
const kernelThread = 0x200000

// userHZ is the unit of Stat.Start. The kernel's USER_HZ is 100 on every
// architecture that Go runs on.
const userHZ = 100

// Ticks returns the Stat.Start of a process that started at a time on CLOCK_BOOTTIME, in
// nanoseconds. The kernel rounds down, too.
func Ticks(start uint64) uint64 { return start / (1e9 / userHZ) }

// ParseStat parses the text of /proc/PID/stat. The name is between the first "(" and the last
// ")", since it may contain both.
func ParseStat(text []byte) (Stat, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return Stat{}, fmt.Errorf("stat %q has no name", text)
	}
	st := Stat{Comm: text[open+1 : end]}
	rest := text[end+1:]
	for field := 3; field <= 22; field++ {
		rest = bytes.TrimLeft(rest, " ")
		n := bytes.IndexAny(rest, " \n")
		if n < 0 {
			n = len(rest)
		}
		if n == 0 {
			return Stat{}, fmt.Errorf("stat %q ends before field %d", text, field)
		}
		switch field {
		case 3:
			st.State = rest[0]
		case 4:
			parent, err := strconv.Atoi(string(rest[:n]))
			if err != nil {
				return Stat{}, fmt.Errorf("parent %q", rest[:n])
			}
			st.Parent = parent
		case 9:
			flags, err := strconv.ParseUint(string(rest[:n]), 10, 64)
			if err != nil {
				return Stat{}, fmt.Errorf("flags %q", rest[:n])
			}
			st.Kernel = flags&kernelThread != 0
		case 22:
			start, err := strconv.ParseUint(string(rest[:n]), 10, 64)
			if err != nil {
				return Stat{}, fmt.Errorf("start time %q", rest[:n])
			}
			st.Start = start
		}
		rest = rest[n:]
	}
	return st, nil
}

// noLogin is what /proc/PID/loginuid shows if nobody has logged in to start the
// process: AUDIT_UID_UNSET of include/uapi/linux/audit.h.
const noLogin = 1<<32 - 1

// parseLoginUID reads the text of /proc/PID/loginuid; false if nobody has logged in.
func parseLoginUID(text []byte) (uid uint32, ok bool, err error) {
	n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 32)
	if err != nil {
		return 0, false, fmt.Errorf("loginuid %q", text)
	}
	return uint32(n), n != noLogin, nil
}

// parseBootTime returns the boot time, in Unix seconds, from the text of /proc/stat.
func parseBootTime(text []byte) (int64, error) {
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("btime ")); ok {
			return strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		}
	}
	return 0, fmt.Errorf("no line btime")
}

// parseCapabilities returns the effective capabilities from the text of /proc/PID/status.
func parseCapabilities(text []byte) (uint64, error) {
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("CapEff:")); ok {
			return strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		}
	}
	return 0, fmt.Errorf("no line CapEff")
}

// parseUID returns the effective user id from the text of /proc/PID/status, which has the real,
// effective, saved and file system uid in one line.
func parseUID(text []byte) (uint32, error) {
	for line := range bytes.Lines(text) {
		value, ok := bytes.CutPrefix(line, []byte("Uid:"))
		if !ok {
			continue
		}
		ids := bytes.Fields(value)
		if len(ids) != 4 {
			return 0, fmt.Errorf("uids %q", value)
		}
		uid, err := strconv.ParseUint(string(ids[1]), 10, 32)
		return uint32(uid), err
	}
	return 0, fmt.Errorf("no line Uid")
}

// allUsers reports whether a text of /proc/PID/uid_map is that of the host's user namespace.
func allUsers(text []byte) bool {
	return string(bytes.Join(bytes.Fields(text), []byte(" "))) == "0 0 4294967295"
}

// parseProfile returns the name of the AppArmor profile that is enforced, from a text such as
// "docker-default (enforce)". The texts of other security modules have no mode at the end.
func parseProfile(text []byte) string {
	profile, mode, ok := strings.Cut(strings.TrimRight(string(text), "\n\x00"), " (")
	if !ok || mode != "enforce)" && mode != "kill)" && mode != "mixed)" {
		return ""
	}
	return profile
}

// parseLink returns the inode in the text of a link such as socket:[1045], whose prefix is
// "socket:[". It returns false for any other link.
func parseLink(link []byte, prefix string) (inode uint64, ok bool) {
	if len(link) < len(prefix)+2 || string(link[:len(prefix)]) != prefix || link[len(link)-1] != ']' {
		return 0, false
	}
	for _, c := range link[len(prefix) : len(link)-1] {
		if c < '0' || c > '9' || inode > (1<<64-1)/10-1 {
			return 0, false
		}
		inode = inode*10 + uint64(c-'0')
	}
	return inode, true
}
