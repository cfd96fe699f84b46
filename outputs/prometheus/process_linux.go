package prometheus

import (
	"bytes"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// newProcessCollector returns a collector of the usual process_* metrics.
//
// client_golang's own reads and splits all of /proc/stat at every scrape to find
// the start time again: on a large host that alone costs more than the rest of a
// scrape. The names and texts are its, see TestProcessMetrics.
func newProcessCollector() prometheus.Collector {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	c := &processCollector{
		openFDs:  newProcessMetric(gauge, "process_open_fds", "Number of open file descriptors."),
		maxFDs:   newProcessMetric(gauge, "process_max_fds", "Maximum number of open file descriptors."),
		cpu:      newProcessMetric(counter, "process_cpu_seconds_total", "Total user and system CPU time spent in seconds."),
		vsize:    newProcessMetric(gauge, "process_virtual_memory_bytes", "Virtual memory size in bytes."),
		maxVsize: newProcessMetric(gauge, "process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes."),
		rss:      newProcessMetric(gauge, "process_resident_memory_bytes", "Resident memory size in bytes."),
		start:    newProcessMetric(gauge, "process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
		received: newProcessMetric(counter, "process_network_receive_bytes_total", "Number of bytes received by the process over the network."),
		sent:     newProcessMetric(counter, "process_network_transmit_bytes_total", "Number of bytes sent by the process over the network."),
	}
	if stat, err := os.ReadFile("/proc/stat"); err == nil {
		c.bootTime, c.booted = bootTime(stat)
	}
	return c
}

// A processCollector collects what it can read; the rest is left out. It is asked
// by one at a time.
type processCollector struct {
	openFDs, maxFDs, cpu, vsize, maxVsize, rss, start, received, sent processMetric

	bootTime float64 // Unix seconds, where booted
	booted   bool

	buf []byte // for files, used again
}

type processMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func newProcessMetric(kind prometheus.ValueType, name, help string) processMetric {
	return processMetric{prometheus.NewDesc(name, help, nil, nil), kind}
}

// Describe sends nothing: Collect may leave any of them out.
func (*processCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends what /proc/self and the limits say now.
func (c *processCollector) Collect(ch chan<- prometheus.Metric) {
	send := func(m processMetric, v float64) { ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v) }
	if b, err := c.read("/proc/self/stat"); err == nil {
		if s, ok := parseStat(b); ok {
			send(c.cpu, s.cpuSeconds)
			send(c.vsize, s.vsize)
			send(c.rss, s.rssPages*float64(os.Getpagesize()))
			if c.booted {
				send(c.start, c.bootTime+s.startSeconds)
			}
		}
	}
	if n, err := countFDs(); err == nil {
		send(c.openFDs, float64(n))
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		send(c.maxFDs, float64(limit.Cur))
	}
	if unix.Getrlimit(unix.RLIMIT_AS, &limit) == nil {
		send(c.maxVsize, float64(limit.Cur))
	}
	if b, err := c.read("/proc/self/net/netstat"); err == nil {
		if received, sent, ok := parseOctets(b); ok {
			send(c.received, received)
			send(c.sent, sent)
		}
	}
}

// read returns what is in a file, valid until the next call.
func (c *processCollector) read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := bytes.NewBuffer(c.buf[:0])
	_, err = buf.ReadFrom(f)
	c.buf = buf.Bytes()
	return c.buf, err
}

// countFDs counts this process's descriptors. The size of the directory is their
// number since Linux 6.2.
func countFDs() (int, error) {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	if info, err := d.Stat(); err == nil && info.Size() > 0 {
		return int(info.Size()), nil
	}
	names, err := d.Readdirnames(-1)
	return len(names), err
}

// userHZ is the unit of times in /proc/PID/stat. It is 100 in the interface of
// every architecture that Go supports, see proc_pid_stat(5) and USER_HZ.
const userHZ = 100

// A procStat is what is needed of /proc/PID/stat.
type procStat struct{ cpuSeconds, startSeconds, vsize, rssPages float64 }

// parseStat parses /proc/PID/stat. The name, in parentheses, may hold anything.
func parseStat(b []byte) (procStat, bool) {
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const first = 3 // the number, in proc_pid_stat(5), of the first field behind the name
	var values [25]float64
	for _, i := range []int{14, 15, 22, 23, 24} {
		if i-first >= len(fields) {
			return procStat{}, false
		}
		v, err := strconv.ParseFloat(string(fields[i-first]), 64)
		if err != nil {
			return procStat{}, false
		}
		values[i] = v
	}
	return procStat{(values[14] + values[15]) / userHZ, values[22] / userHZ, values[23], values[24]}, true
}

// bootTime finds the boot time in /proc/stat.
func bootTime(b []byte) (float64, bool) {
	for line := range bytes.Lines(b) {
		if s, ok := bytes.CutPrefix(line, []byte("btime ")); ok {
			v, err := strconv.ParseFloat(string(bytes.TrimSpace(s)), 64)
			return v, err == nil
		}
	}
	return 0, false
}

// parseOctets finds the octets received and sent in /proc/PID/net/netstat, where a
// line of names stands before each line of values.
func parseOctets(b []byte) (received, sent float64, ok bool) {
	var names []byte
	for line := range bytes.Lines(b) {
		values, found := bytes.CutPrefix(line, []byte("IpExt: "))
		if !found {
			continue
		}
		if names == nil {
			names = values
			continue
		}
		received, in := valueOf(names, values, "InOctets")
		sent, out := valueOf(names, values, "OutOctets")
		return received, sent, in && out
	}
	return 0, 0, false
}

func valueOf(names, values []byte, name string) (float64, bool) {
	for len(names) > 0 && len(values) > 0 {
		var n, v []byte
		n, names = nextField(names)
		v, values = nextField(values)
		if string(n) == name {
			f, err := strconv.ParseFloat(string(v), 64)
			return f, err == nil
		}
	}
	return 0, false
}

// nextField cuts the first field off a line.
func nextField(line []byte) (field, rest []byte) {
	field, rest, _ = bytes.Cut(bytes.TrimLeft(line, " "), []byte(" "))
	return bytes.TrimSpace(field), rest
}
