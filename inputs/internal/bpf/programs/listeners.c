// SPDX-License-Identifier: GPL-2.0-only OR MIT

// The programs that the package loads. They read few kernel structs; those are declared here
// with the fields that are read, and the loader relocates the fields for the running kernel
// (CO-RE), so that one object serves every kernel from 5.12 on.

#include "kernel.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

// Inode number of the pid namespace whose numbers the records carry, set by the loader.
const volatile __u32 pid_namespace;

#define MAX_PID_NAMESPACES 33 // MAX_PID_NS_LEVEL of the kernel, and the first

// pid_in_namespace returns the number of a task in pid_namespace, or 0 if it has none.
static __always_inline __u32 pid_in_namespace(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	void *numbers = (void *)pid + bpf_core_field_offset(struct pid, numbers);

	for (__u32 i = 0; i < MAX_PID_NAMESPACES && i <= level; i++) {
		struct upid upid = {};
		struct upid *at = numbers + i * bpf_core_type_size(struct upid);
		upid.nr = BPF_CORE_READ(at, nr);
		if (BPF_CORE_READ(at, ns, ns.inum) == pid_namespace)
			return upid.nr;
	}
	return 0;
}

static __always_inline __u64 inode_of(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino);
}

static __always_inline bool is_inet(struct sock *sk, __u16 protocol)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return (family == AF_INET || family == AF_INET6) && BPF_CORE_READ(sk, sk_protocol) == protocol;
}

// A process is what is compared to find out whether a process has changed.
struct process {
	__u64 start;      // nanoseconds of CLOCK_BOOTTIME
	__u64 cgroup;     // inode number of its cgroup v2 directory
	__u64 cgroup_set; // address of its set of cgroups, which also changes with those of v1
	char comm[16];
};

static __always_inline void fill_process(struct process *p, struct task_struct *leader)
{
	struct css_set *set = BPF_CORE_READ(leader, cgroups);

	p->start = BPF_CORE_READ(leader, start_boottime);
	p->cgroup = BPF_CORE_READ(set, dfl_cgrp, kn, id);
	p->cgroup_set = (__u64)set;
	bpf_probe_read_kernel_str(p->comm, sizeof(p->comm), leader->comm);
}

// A holder is an open file that is a listening socket or, if inode is 0, an io_uring.
struct holder {
	__u64 inode; // no two sockets of a host have the same
	__u32 pid;
	__u32 tid; // of a thread with this table of files, usually the pid
	__u32 fd;
	__u32 held; // 0 for a check that verify has not found to be open
	struct process process;
};

// Whether to write the io_urings instead of the sockets. The program sets it before it reads.
volatile bool only_rings;

// is_ring reports whether a file is an io_uring, by the name that procfs shows.
static __always_inline bool is_ring(struct file *file)
{
	const char want[] = "[io_uring]";
	char name[sizeof(want)] = {};

	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(file, f_path.dentry, d_name.name));
#pragma unroll
	for (int i = 0; i < sizeof(want); i++)
		if (name[i] != want[i])
			return false;
	return true;
}

static __always_inline void write_holder(struct bpf_iter__task_file *ctx, struct task_struct *task, __u64 inode)
{
	struct holder h = {
		.inode = inode,
		.pid = pid_in_namespace(task->group_leader),
		.tid = pid_in_namespace(task),
		.fd = ctx->fd,
		.held = 1,
	};
	fill_process(&h.process, task->group_leader);

	// A full buffer loses nothing: the kernel calls again with the same file.
	bpf_seq_write(ctx->meta->seq, &h, sizeof(h));
}

// holders writes a holder for each open file of any process that is a listening TCP socket.
// The kernel calls it for each open file of each task with a table of files of its own, and
// once more without a file at the end.
SEC("iter/task_file")
int holders(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct task_struct *task = ctx->task;

	if (!file || !task)
		return 0;
	struct socket *socket = bpf_sock_from_file(file);
	if (only_rings) {
		if (!socket && is_ring(file))
			write_holder(ctx, task, 0);
		return 0;
	}
	if (!socket)
		return 0;
	struct sock *sk = socket->sk;
	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN)
		return 0;
	// The file of an MPTCP listener, as Go programs open them, is the MPTCP socket. The TCP
	// socket below it, which sock_diag lists, has the same inode.
	if (!is_inet(sk, IPPROTO_TCP) && !is_inet(sk, IPPROTO_MPTCP))
		return 0;

	write_holder(ctx, task, BPF_CORE_READ(file, f_inode, i_ino));
	return 0;
}

#define MAX_CHECKS 4096
#define MAX_CHECKS_PER_TASK 128 // the verifier follows each of them

// Sockets that were open files of tasks, in ascending order of tid. The program sets inode, tid
// and fd of each; verify sets the rest of those that are still open.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_CHECKS);
	__type(key, __u32);
	__type(value, struct holder);
} checks SEC(".maps");

// Number of checks, and the next one to look at.
__u32 checks_end, checks_next;

// is_socket reports whether a task has a socket open as fd. Nothing keeps the file from being
// closed meanwhile: then the answer is as of just before or after.
static __always_inline bool is_socket(struct task_struct *task, __u32 fd, __u64 inode)
{
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(fdt, fd), *file = 0;

	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return false;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return BPF_CORE_READ(file, f_inode, i_ino) == inode && BPF_CORE_READ(file, f_inode, i_sb, s_magic) == SOCKFS_MAGIC;
}

// verify looks at the checks. The kernel calls it for each task, in ascending order of the
// numbers in the pid namespace of whoever reads, and once more without a task at the end.
SEC("iter/task")
int verify(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (!task)
		return 0;
	struct task_struct *leader = task->group_leader;
	if (task != leader && task->files == leader->files)
		return 0;
	__u32 pid = pid_in_namespace(leader), tid = task == leader ? pid : pid_in_namespace(task);
	for (int i = 0; i < MAX_CHECKS_PER_TASK; i++) {
		__u32 next = checks_next;
		if (next >= checks_end)
			return 0;
		struct holder *c = bpf_map_lookup_elem(&checks, &next);
		if (!c || c->tid > tid)
			return 0;
		if (c->tid == tid && is_socket(task, c->fd, c->inode)) {
			c->pid = pid;
			fill_process(&c->process, leader);
			c->held = 1;
		}
		checks_next = next + 1;
	}
	return 0;
}

// A change is a socket that began or ceased to listen.
struct change {
	__u64 time; // nanoseconds of CLOCK_BOOTTIME
	__u64 cookie;
	__u64 inode; // 0 if the socket has no file, as when its last file is closed
	__u64 start; // when the process started
	__u64 cgroup;
	__u32 netns;
	__u32 pid; // of the process that called listen or close, 0 if it has none in pid_namespace
	__u32 uid; // of the socket
	__u32 backlog_limit;
	__u32 device; // index of the device that the socket is bound to, or 0
	__u16 port;   // 0 if the kernel chooses one in listen: then the end has it
	__u8 family;  // AF_INET or AF_INET6
	__u8 listens; // 1 at the beginning, 0 at the end
	__u8 v6only;
	__u8 shut;    // it is being closed, and not only made to listen no longer
	__u8 padding[6];
	__u8 address[16]; // 4 bytes for AF_INET
	char comm[16];
};

// Without a variable of its type, bpf2go would not see the struct.
const struct change *unused_change __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20); // about 7,000 changes
} changes SEC(".maps");

// Number of changes that are in the ring buffer or were, and of those that found it full.
__u64 sent, lost;

static __always_inline void fill_address(struct change *c, struct sock *sk)
{
	if (c->family == AF_INET) {
		__be32 address = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		__builtin_memcpy(c->address, &address, sizeof(address));
	} else {
		struct in6_addr address = BPF_CORE_READ(sk, __sk_common.skc_v6_rcv_saddr);
		__builtin_memcpy(c->address, &address, sizeof(address));
	}
}

// listen_changes sends a change for each TCP socket that begins or ceases to listen, in every
// network namespace. The kernel calls it at every change of the state of a TCP socket, so
// what leads to the first return is all that a connection costs.
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(listen_changes, struct sock *sk, int from, int to)
{
	if (from != TCP_LISTEN && to != TCP_LISTEN)
		return 0;
	if (from == to || !is_inet(sk, IPPROTO_TCP))
		return 0;
	struct change *c = bpf_ringbuf_reserve(&changes, sizeof(*c), 0);
	if (!c) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;

	__builtin_memset(c, 0, sizeof(*c));
	c->time = bpf_ktime_get_boot_ns();
	c->cookie = bpf_get_socket_cookie(sk);
	c->inode = inode_of(sk);
	c->start = BPF_CORE_READ(leader, start_boottime);
	c->cgroup = bpf_get_current_cgroup_id();
	c->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	c->pid = pid_in_namespace(leader);
	c->uid = BPF_CORE_READ(sk, sk_uid.val);
	c->backlog_limit = BPF_CORE_READ(sk, sk_max_ack_backlog);
	c->device = BPF_CORE_READ(sk, __sk_common.skc_bound_dev_if);
	c->port = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (!c->port && from == TCP_LISTEN) // the kernel has released the port that it chose
		c->port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	c->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	c->listens = to == TCP_LISTEN;
	c->shut = BPF_CORE_READ(sk, sk_shutdown) != 0;
	c->v6only = BPF_CORE_READ_BITFIELD_PROBED(sk, __sk_common.skc_ipv6only);
	fill_address(c, sk);
	bpf_probe_read_kernel_str(c->comm, sizeof(c->comm), leader->comm);
	bpf_ringbuf_submit(c, 0);
	__sync_fetch_and_add(&sent, 1);
	return 0;
}
