package users

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sockwatch/inputs/internal/host"
)

// serve answers the calls of a userdb multiplexer until the test ends or stop is
// called, which removes its socket.
func (f *fakeHost) serve(answer func(request []byte) []byte) (stop func()) {
	f.t.Helper()
	path := filepath.Join(f.root, multiplexerSocket)
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		f.t.Fatal(err)
	}
	defer dir.Close()
	// The path of a socket must be short.
	listener, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
	if err != nil {
		f.t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if request, err := bufio.NewReader(conn).ReadBytes(0); err == nil {
					conn.Write(answer(request))
				}
			}()
		}
	}()
	stop = sync.OnceFunc(func() {
		listener.Close()
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			f.t.Error(err)
		}
	})
	f.t.Cleanup(stop)
	return stop
}

// known answers like a multiplexer that knows some users.
func known(names map[uint32]string) func(request []byte) []byte {
	return func(request []byte) []byte {
		var call struct {
			Method     string
			Parameters struct {
				UID     uint32
				Service string
			}
		}
		text, ended := bytes.CutSuffix(request, []byte{0})
		if err := json.Unmarshal(text, &call); err != nil || !ended || call.Method != "io.systemd.UserDatabase.GetUserRecord" ||
			call.Parameters.Service != "io.systemd.Multiplexer" {
			return []byte(`{"error":"org.varlink.service.InvalidParameter","parameters":{}}` + "\x00")
		}
		name, ok := names[call.Parameters.UID]
		if !ok {
			return []byte(`{"error":"io.systemd.UserDatabase.NoRecordFound","parameters":{}}` + "\x00")
		}
		record, _ := json.Marshal(map[string]any{"userName": name, "uid": call.Parameters.UID, "gid": 0, "disposition": "regular"})
		return fmt.Appendf(nil, `{"parameters":{"record":%s,"incomplete":false}}`+"\x00", record)
	}
}

func TestUserdbReplies(t *testing.T) {
	for _, test := range []struct {
		name  string
		reply string
		want  string
		err   string
	}{
		{name: "record", reply: `{"parameters":{"record":{"userName":"web","uid":1000},"incomplete":false}}`, want: "web"},
		{name: "hostile name", reply: `{"parameters":{"record":{"userName":"a\u0007\\b","uid":1000}}}`, want: `a\x07\x5cb`},
		{name: "none", reply: `{"error":"io.systemd.UserDatabase.NoRecordFound","parameters":{}}`, want: ""},
		{name: "down", reply: `{"error":"io.systemd.UserDatabase.ServiceNotAvailable"}`, err: "userdb: io.systemd.UserDatabase.ServiceNotAvailable"},
		{name: "another user", reply: `{"parameters":{"record":{"userName":"root","uid":0}}}`, err: "userdb: record of another user"},
		{name: "no uid", reply: `{"parameters":{"record":{"userName":"root"}}}`, err: "userdb: record of another user"},
		{name: "no name", reply: `{"parameters":{"record":{"uid":1000}}}`, err: `userdb: uid 1000 has the invalid name ""`},
		{name: "no record", reply: `{"parameters":{}}`, err: "userdb: record of another user"},
		{name: "damaged", reply: `{"parameters":`, err: "userdb: unexpected end of JSON input"},
		{name: "empty", reply: ``, err: "userdb: unexpected end of JSON input"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeHost(t)
			f.serve(func([]byte) []byte { return append([]byte(test.reply), 0) })
			name, err := userdb{f.Host}.name(t.Context(), 1000)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if diff := cmp.Diff([]string{test.want, test.err}, []string{name, text}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestUserdbBreaksOff(t *testing.T) {
	for _, test := range []struct{ name, reply, err string }{
		{name: "at once", reply: "", err: "userdb: EOF"},
		{name: "in the middle", reply: `{"parameters":{}}`, err: "userdb: EOF"},
		{name: "after too much", reply: strings.Repeat(" ", maxReply+1), err: "userdb: EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeHost(t)
			f.serve(func([]byte) []byte { return []byte(test.reply) })
			if _, err := (userdb{f.Host}).name(t.Context(), 1000); err == nil || err.Error() != test.err {
				t.Errorf("%v, expected %s", err, test.err)
			}
		})
	}
}

func TestUserdbIsNotThere(t *testing.T) {
	f := newFakeHost(t)
	if _, err := (userdb{f.Host}).name(t.Context(), 1000); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	f.write(multiplexerSocket, "not a socket")
	if _, err := (userdb{f.Host}).name(t.Context(), 1000); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
}

func TestUserdbAnswersNothing(t *testing.T) {
	f := newFakeHost(t)
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	f.serve(func([]byte) []byte { <-end; return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if name, err := (userdb{f.Host}).name(ctx, 1000); err == nil {
		t.Errorf("it is %q", name)
	}
}

// FuzzUserReply checks that names are printable.
func FuzzUserReply(f *testing.F) {
	f.Add([]byte(`{"parameters":{"record":{"userName":"web","uid":1000},"incomplete":false}}`))
	f.Add([]byte(`{"error":"io.systemd.UserDatabase.NoRecordFound","parameters":{}}`))
	f.Add([]byte(`{"parameters":{"record":{"userName":"a\u0007\\b\ud800","uid":1000}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		name, err := parseUserReply(text, 1000)
		if err != nil && name != "" || !utf8.ValidString(name) || strings.ContainsAny(name, "\n\r\x00") {
			t.Errorf("%q, %v", name, err)
		}
	})
}

// TestRealUserdb asks systemd-userdbd, which runs in a mount namespace of its own with
// one user that only it knows.
func TestRealUserdb(t *testing.T) {
	script := `
		mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/userdb /run/userdb &&
		echo '{"userName":"dropped","uid":4242,"gid":4242,"disposition":"regular"}' >/run/userdb/4242.user &&
		exec /lib/systemd/systemd-userdbd`
	var stderr bytes.Buffer
	cmd := exec.Command("sh", "-c", script)
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // also its workers
		<-exited
	})
	proc := t.TempDir()
	if err := os.Symlink("/proc/"+strconv.Itoa(cmd.Process.Pid), filepath.Join(proc, "1")); err != nil {
		t.Fatal(err)
	}
	u := userdb{host.Host{Proc: proc}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := errors.New("not asked yet")
	soon(t, "systemd-userdbd answers or has exited", func() bool {
		select {
		case <-exited:
			return true
		default:
		}
		_, err = u.name(ctx, 0)
		return err == nil
	})
	if err != nil {
		t.Skipf("systemd-userdbd does not run: %s", &stderr)
	}
	for uid, want := range map[uint32]string{
		0:       "root",    // by NSS
		4242:    "dropped", // by a file of userdb
		3999999: "",
	} {
		if name, err := u.name(ctx, uid); name != want || err != nil {
			t.Errorf("uid %d is %q, %v, expected %q", uid, name, err, want)
		}
	}
}
