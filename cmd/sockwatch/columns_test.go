package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

func TestAgo(t *testing.T) {
	for _, test := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Second, "0s"}, {59 * time.Second, "59s"}, {61 * time.Second, "1m1s"},
		{3 * time.Hour, "3h0m"}, {49 * time.Hour, "2d1h"}, {1000 * 24 * time.Hour, "1000d0h"},
	} {
		if got := ago(test.d); got != test.want {
			t.Errorf("ago(%v) = %q, want %q", test.d, got, test.want)
		}
	}
}

func TestAddressAsSSPrintsIt(t *testing.T) {
	for _, test := range []struct{ address, family, want string }{
		{"::", "dual", "*:1"}, {"::%lo", "dual", "*%lo:1"}, {"::", "ipv6", "[::]:1"}, {"::1", "ipv6", "[::1]:1"},
		{"0.0.0.0%eth0", "ipv4", "0.0.0.0%eth0:1"}, {"::ffff:127.0.0.1", "ipv4", "[::ffff:127.0.0.1]:1"},
	} {
		p := metric.Point{Tags: metric.NewTags("address", test.address, "family", test.family, "port", "1")}
		if got := address(&p); got != test.want {
			t.Errorf("%v: %s", test, got)
		}
	}
}

func TestUnit(t *testing.T) {
	tests := []struct {
		tags []string
		want string
	}{
		{tags: []string{"unit", "nginx.service", "container", "0123456789ab"}, want: "nginx.service"},
		{tags: []string{"unit", "user@1000.service", "user_unit", "sshd.service"}, want: "sshd.service (user)"},
		{tags: []string{"container", "0123456789ab", "pod", "p"}, want: "0123456789ab"},
		{tags: []string{"pod", "p"}, want: "p"},
		{want: ""},
	}
	for _, tt := range tests {
		if got := unit(&metric.Point{Tags: metric.NewTags(tt.tags...)}); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.tags, got, tt.want)
		}
	}
}

func TestWideAndNamespacesAddColumns(t *testing.T) {
	listeners := []metric.Point{
		{Tags: metric.NewTags("address", "127.0.0.1", "port", "80", "family", "ipv4", "process", "nginx", "user", "www",
			"unit", "docker.service", "container", "0123456789ab", "netns", "blue", "exposure", "loopback", "owner", "resolved"),
			Fields: append(fields("pid", 7), metric.Field{Key: "exe", Value: metric.String("/usr/sbin/nginx")}, metric.Field{Key: "exe_deleted", Value: metric.Bool(true)})},
		{Tags: metric.NewTags("address", "::", "port", "81", "family", "dual", "pod", "p", "owner", "unreadable")},
	}
	tests := []struct {
		name    string
		command listCommand
		want    string
	}{
		{name: "wide", command: listCommand{Wide: true}, want: `
ADDRESS       FAMILY  EXPOSURE  PROCESS       PID  USER  UNIT            CONTAINER     QUEUE  SINCE  EXE
127.0.0.1:80  ipv4    loopback  nginx           7  www   docker.service  0123456789ab                /usr/sbin/nginx (deleted)
*:81          dual              (unreadable)             p               p
`},
		{name: "namespaces", command: listCommand{Namespaces: true}, want: `
NETNS  ADDRESS       EXPOSURE  PROCESS       PID  USER  UNIT            QUEUE  SINCE
blue   127.0.0.1:80  loopback  nginx           7  www   docker.service
       *:81                    (unreadable)             p
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := "\n" + strings.Join(tableLines(tt.command.table(listeners, scanned), 0), "\n") + "\n"
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("table (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSortByEveryColumn(t *testing.T) {
	// Three listeners on the ports 1, 2 and 3, which each column orders differently. The
	// third has no numbers.
	listeners := []metric.Point{
		{Tags: metric.NewTags("port", "1", "address", "10.0.0.9", "family", "ipv4", "exposure", "public", "process", "c", "user", "u3",
			"unit", "b.service", "container", "c1", "netns", "n2"),
			Fields: append(fields("pid", 30, "backlog", 5, "process_start_time_seconds", 100.0), metric.Field{Key: "exe", Value: metric.String("/z")})},
		{Tags: metric.NewTags("port", "2", "address", "9.0.0.1%eth0", "family", "ipv6", "exposure", "loopback", "process", "a", "user", "u2",
			"unit", "c.service", "container", "c3", "netns", "n1"),
			Fields: append(fields("pid", 4, "backlog", 20, "process_start_time_seconds", 300.0), metric.Field{Key: "exe", Value: metric.String("/y")})},
		{Tags: metric.NewTags("port", "3", "address", "::1", "family", "dual", "process", "b", "user", "u1",
			"unit", "a.service", "container", "c2", "netns", "n3"),
			Fields: []metric.Field{{Key: "exe", Value: metric.String("/x")}}},
	}
	tests := []struct{ key, want string }{
		{"port", "123"}, {"-port", "321"}, {"address", "213"}, {"-address", "312"}, {"family", "312"}, {"-family", "213"},
		{"exposure", "321"}, {"-exposure", "123"}, {"process", "231"}, {"-process", "132"},
		{"pid", "213"}, {"-pid", "123"}, {"user", "321"}, {"-user", "123"}, {"unit", "312"}, {"-unit", "213"},
		{"container", "132"}, {"-container", "231"}, {"queue", "123"}, {"-queue", "213"},
		{"since", "213"}, {"-since", "123"}, {"exe", "321"}, {"-exe", "123"}, {"netns", "213"}, {"-netns", "312"},
		{"-QUEUE", "213"}, // as the title of the column is written
	}
	sorted := make(map[string]bool)
	for _, tt := range tests {
		var key sortKey
		if err := key.UnmarshalText([]byte(tt.key)); err != nil {
			t.Fatal(err)
		}
		sorted[strings.ToLower(strings.TrimPrefix(tt.key, "-"))] = true
		shuffled := slices.Clone(listeners)
		slices.Reverse(shuffled)
		key.sort(shuffled)
		var got string
		for i := range shuffled {
			got += shuffled[i].Tag("port")
		}
		if got != tt.want {
			t.Errorf("--sort=%s: %s, want %s", tt.key, got, tt.want)
		}
	}
	for _, key := range (sortKey{}).choices() {
		if !sorted[key] {
			t.Errorf("--sort=%s is not tested", key)
		}
	}
}

func TestEqualListenersAreSortedByPort(t *testing.T) {
	listeners := []metric.Point{
		{Tags: metric.NewTags("port", "10", "process", "x")},
		{Tags: metric.NewTags("port", "9", "process", "x")},
		{Tags: metric.NewTags("port", "8", "process", "y")},
	}
	var key sortKey
	if err := key.UnmarshalText([]byte("-process")); err != nil {
		t.Fatal(err)
	}
	key.sort(listeners)
	var got []string
	for i := range listeners {
		got = append(got, listeners[i].Tag("port"))
	}
	if diff := cmp.Diff([]string{"8", "9", "10"}, got); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
}
