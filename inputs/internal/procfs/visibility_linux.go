package procfs

import "golang.org/x/sys/unix"

// A Visibility says what keeps this program from seeing who holds sockets.
type Visibility struct {
	// Capabilities are this program's effective ones over the host, as a bit set of
	// CAP_ numbers: none in a user namespace of its own.
	Capabilities uint64
	// UserNS reports that this program lives in a user namespace of its own.
	UserNS bool
	// PIDNS reports that this procfs shows, or may show, the processes of one pid
	// namespace only, and not all of the host.
	PIDNS bool
	// HidePID reports that processes which may not be read are not shown either: the
	// mount option hidepid.
	HidePID bool
	// AppArmor is the profile that is enforced on this program, or "". One that does not
	// allow ptrace, as docker-default, makes the capabilities void.
	AppArmor string
}

// Hidden says why there may be processes that are not even seen, or "".
func (v Visibility) Hidden() string {
	switch {
	case v.PIDNS:
		return "processes outside of one pid namespace are not visible"
	case v.HidePID:
		return "processes of other users are not visible (hidepid)"
	}
	return ""
}

// Visibility looks at this program and at the procfs. What it cannot find out counts
// as missing.
func (f *FS) Visibility() Visibility {
	v := Visibility{PIDNS: !f.showsHost(), HidePID: f.hidesPIDs()}
	ids, err := f.readOwn("uid_map")
	v.UserNS = err == nil && !allUsers(ids)
	if status, err := f.readOwn("status"); err == nil && !v.UserNS {
		v.Capabilities, _ = parseCapabilities(status)
	}
	// The file of AppArmor alone is there since Linux 5.1; the other is that of
	// whichever security module came first.
	profile, err := f.readOwn("attr/apparmor/current")
	if err != nil {
		profile, err = f.readOwn("attr/current")
	}
	if err == nil {
		v.AppArmor = parseProfile(profile)
	}
	return v
}

// readOwn reads a file of this program's; valid until the next read.
func (f *FS) readOwn(name string) ([]byte, error) {
	text, err := f.readFile(f.dir, "thread-self/"+name, 64<<10)
	if err != nil { // it is not among the processes of this procfs
		text, err = f.readFile(unix.AT_FDCWD, "/proc/thread-self/"+name, 64<<10)
	}
	return text, err
}

// initPIDNS is the inode of the host's pid namespace, PROC_PID_INIT_INO of
// include/linux/proc_ns.h.
const initPIDNS = 0xEFFFFFFC

// showsHost reports whether the processes of this procfs are known to be all of the
// host.
func (f *FS) showsHost() bool {
	// Kernel threads live in the host's pid namespace alone, and anybody may read their
	// stat; the second process is kthreadd.
	if text, err := f.readFile(f.dir, "2/stat", 4096); err == nil {
		st, err := ParseStat(text)
		return err == nil && st.Kernel
	}
	name := "1/ns/pid"
	if f.host.OwnPIDs {
		name = "self/ns/pid"
	}
	link, err := f.readLink(f.dir, []byte(name))
	if err != nil {
		return false
	}
	inode, ok := parseLink(link, "pid:[")
	return ok && inode == initPIDNS
}

// hidesPIDs reports whether the first process is missing, which every pid namespace
// has.
func (f *FS) hidesPIDs() bool {
	var st unix.Stat_t
	return unix.Fstatat(f.dir, "1", &st, 0) != nil
}
