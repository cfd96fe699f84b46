package procfs

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// Hostile names of processes, as in stat.
var hostile = []string{
	"nginx", "", "a\nb c=1 2", ") R 1 1", "(", ")", "((", "))", "\xff\xfe", "fifteen-bytes-\xc3", "a b", ") Z 0 0 0 (",
	"1 (x) S 1", "\n\n\n", "12345678901234(",
}

func stat(comm string) string {
	return fmt.Sprintf("4711 (%s) S 1 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1000 200 18446744073709551615 1\n", comm)
}

func TestParseStat(t *testing.T) {
	for _, comm := range hostile {
		st, err := ParseStat([]byte(stat(comm)))
		if err != nil || string(st.Comm) != comm || st.Start != 123456 || st.State != 'S' || st.Parent != 1 || st.Kernel {
			t.Errorf("%q: %+v, %v", comm, st, err)
		}
	}
	for text, want := range map[string]string{
		"":                `stat "" has no name`,
		"1 nginx S":       `stat "1 nginx S" has no name`,
		"1 )nginx( S":     `stat "1 )nginx( S" has no name`,
		"1 (x) S 1 2 3\n": `stat "1 (x) S 1 2 3\n" ends before field 7`,
		"1 (x)":           `stat "1 (x)" ends before field 3`,
		strings.Replace(stat("x"), "123456", "-1", 1):  `start time "-1"`,
		strings.Replace(stat("x"), "4194560", "-1", 1): `flags "-1"`,
		strings.Replace(stat("x"), "S 1 ", "S x ", 1):  `parent "x"`,
	} {
		if _, err := ParseStat([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, expected %s", text, err, want)
		}
	}
}

func TestParseLink(t *testing.T) {
	for link, want := range map[string]uint64{
		"socket:[1045]": 1045, "socket:[]": 0, "socket:[1045": 0, "socket:[-1]": 0, "pipe:[1]": 0, "/tmp/socket:[1]": 0,
		"socket:[99999999999999999999999]": 0, "socket:[1] (deleted)": 0, "": 0,
	} {
		got, ok := parseLink([]byte(link), "socket:[")
		if ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %d, %v", link, got, ok)
		}
	}
}

func TestParseLoginUID(t *testing.T) {
	for _, test := range []struct {
		text     string
		uid      uint32
		loggedIn bool
		err      string
	}{
		{text: "1000", uid: 1000, loggedIn: true},
		{text: "0\n", loggedIn: true},
		{text: "4294967295", uid: 4294967295},
		{text: "", err: `loginuid ""`},
		{text: "4294967296", err: `loginuid "4294967296"`},
	} {
		uid, loggedIn, err := parseLoginUID([]byte(test.text))
		if uid != test.uid || loggedIn != test.loggedIn || (err != nil || test.err != "") && fmt.Sprint(err) != test.err {
			t.Errorf("%q: %d, %v, %v", test.text, uid, loggedIn, err)
		}
	}
}

func TestParseBootTime(t *testing.T) {
	got, err := parseBootTime([]byte("cpu 1 2 3\nbtime 1700000000\nprocesses 5\n"))
	if err != nil || got != 1700000000 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := parseBootTime([]byte("cpu 1\n")); err == nil || err.Error() != "no line btime" {
		t.Error(err)
	}
}

func TestParseCapabilities(t *testing.T) {
	got, err := parseCapabilities([]byte("Name:\tCapEff: 1\nCapInh:\t0\nCapEff:\t0000000000080004\n"))
	if err != nil || got != 1<<19|1<<2 {
		t.Errorf("%x, %v", got, err)
	}
}

func TestParseUID(t *testing.T) {
	for _, test := range []struct {
		text string
		uid  uint32
		err  string
	}{
		{text: "Name:\tUid: 7\nUid:\t1000\t1001\t1002\t1003\nGid:\t5\t5\t5\t5\n", uid: 1001},
		{text: "Uid:\t4294967294\t4294967294\t0\t0\n", uid: 4294967294},
		{text: "Uid:\t1\n", err: `uids "\t1\n"`},
		{text: "Uid:\t0\t4294967296\t0\t0\n", err: `strconv.ParseUint: parsing "4294967296": value out of range`},
		{text: "Gid:\t0\t0\t0\t0\n", err: "no line Uid"},
	} {
		uid, err := parseUID([]byte(test.text))
		if test.err != "" && fmt.Sprint(err) != test.err || test.err == "" && (err != nil || uid != test.uid) {
			t.Errorf("%q: %d, %v", test.text, uid, err)
		}
	}
}

// FuzzParseUID: any text is accepted or refused, and the name of a process does not count.
func FuzzParseUID(f *testing.F) {
	for _, comm := range hostile {
		f.Add([]byte(comm))
	}
	f.Add([]byte("Uid:\t1\t2\t3\t4\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = parseUID(text)
		name := bytes.ReplaceAll(text, []byte("\n"), []byte(`\n`)) // as the kernel prints it
		if uid, err := parseUID(fmt.Appendf(nil, "Name:\t%s\nUid:\t1\t2\t3\t4\n", name)); err != nil || uid != 2 {
			t.Errorf("%q: %d, %v", name, uid, err)
		}
	})
}

// FuzzParseStat: the parser finds the text between the first and the last
// parenthesis, and accepts anything else without a panic.
func FuzzParseStat(f *testing.F) {
	for _, comm := range hostile {
		f.Add([]byte(comm), []byte(stat(comm)))
	}
	f.Add([]byte{}, []byte("1 (x) S 1 2 3"))
	f.Fuzz(func(t *testing.T, comm, text []byte) {
		if st, err := ParseStat(text); err == nil && len(st.Comm)+2 > len(text) {
			t.Errorf("the name %q of %q", st.Comm, text)
		}
		st, err := ParseStat([]byte(stat(string(comm))))
		if err != nil || string(st.Comm) != string(comm) || st.Start != 123456 {
			t.Errorf("%q: %+v, %v", comm, st, err)
		}
	})
}
