package procfs

import "golang.org/x/sys/unix"

// A Visibility says what prevents this program from seeing the holders of sockets.
type Visibility struct {
	// Capabilities are this program's effective capabilities on the host, as a bit set of
	// CAP_ numbers. There are none in another user namespace than the host's.
	Capabilities uint64
	// UserNS reports that this program is in another user namespace than the host's.
	UserNS bool
	// PIDNS reports that this procfs shows, or may show, only the processes of one pid
	// namespace, and not all processes of the host.
	PIDNS bool
	// HidePID reports that processes that may not be read are not visible either, because of
	// the mount option hidepid.
	HidePID bool
	// AppArmor is the profile that is enforced on this program, or "". A profile that does
	// not allow ptrace, such as docker-default, makes the capabilities ineffective.
	AppArmor string
}

// Hidden returns why there may be processes that are not visible at all, or "".
func (v Visibility) Hidden() string {
	switch {
	case v.PIDNS:
		return "processes outside one pid namespace are not visible"
	case v.HidePID:
		return "processes of other users are not visible (hidepid)"
	}
	return ""
}

// Visibility examines this program and the procfs. Whatever it cannot find out counts as
// missing.
func (f *FS) Visibility() Visibility {
	v := Visibility{PIDNS: !f.showsHost(), HidePID: f.hidesPIDs()}
	ids, err := f.readOwn("uid_map")
	v.UserNS = err == nil && !allUsers(ids)
	if status, err := f.readOwn("status"); err == nil && !v.UserNS {
		v.Capabilities, _ = parseCapabilities(status)
	}
	// AppArmor has its own file since Linux 5.1. The other file belongs to the first of all
	// security modules.
	profile, err := f.readOwn("attr/apparmor/current")
	if err != nil {
		profile, err = f.readOwn("attr/current")
	}
	if err == nil {
		v.AppArmor = parseProfile(profile)
	}
	return v
}

// readOwn reads a file of this program's own process. The text is valid until the next read.
func (f *FS) readOwn(name string) ([]byte, error) {
	text, err := f.readFile(f.dir, "thread-self/"+name, 64<<10)
	if err != nil { // the program is not visible in this procfs
		text, err = f.readFile(unix.AT_FDCWD, "/proc/thread-self/"+name, 64<<10)
	}
	return text, err
}

// initPIDNS is the inode of the host's pid namespace: PROC_PID_INIT_INO in
// include/linux/proc_ns.h.
const initPIDNS = 0xEFFFFFFC

// showsHost reports whether this procfs is known to show all processes of the host.
func (f *FS) showsHost() bool {
	// Kernel threads exist only in the host's pid namespace, and every program may read their
	// stat. Pid 2 is kthreadd.
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

// hidesPIDs reports whether pid 1 is not visible. Every pid namespace has one.
func (f *FS) hidesPIDs() bool {
	var st unix.Stat_t
	return unix.Fstatat(f.dir, "1", &st, 0) != nil
}
