package users

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/host"
)

// userdb queries systemd's user database with the one varlink call that it needs:
// https://systemd.io/USER_GROUP_API. The multiplexer queries all services of the host,
// including the one for NSS.
type userdb struct{ host host.Host }

const (
	multiplexer       = "io.systemd.Multiplexer"
	multiplexerSocket = "run/systemd/userdb/" + multiplexer
	userInterface     = "io.systemd.UserDatabase."
	maxReply          = 1 << 20
)

// name returns the escaped name of a user, or "" if userdb says that there is none.
func (u userdb) name(ctx context.Context, uid uint32) (string, error) {
	conn, err := u.dial(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write(userRequest(uid)); err != nil {
		return "", err
	}
	reply, err := bufio.NewReader(io.LimitReader(conn, maxReply)).ReadBytes(0)
	if err != nil {
		return "", fmt.Errorf("userdb: %w", err)
	}
	return parseUserReply(reply[:len(reply)-1], uid)
}

// dial connects to the host's multiplexer. The path goes through the root of another process,
// and connect(2) would follow every link in it, so dial first opens the socket with O_PATH.
func (u userdb) dial(ctx context.Context) (net.Conn, error) {
	fd, err := open(u.host, multiplexerSocket, unix.O_PATH)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", multiplexerSocket, err)
	}
	defer unix.Close(fd)
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
}

// userRequest returns the call for the record of a uid. A varlink message is JSON followed by a
// zero byte.
func userRequest(uid uint32) []byte {
	return append(fmt.Appendf(nil, `{"method":"%sGetUserRecord","parameters":{"uid":%d,"service":"%s"}}`,
		userInterface, uid, multiplexer), 0)
}

// parseUserReply returns the escaped name in a reply, or "" if it says that there is none.
func parseUserReply(text []byte, uid uint32) (string, error) {
	var reply struct {
		Error      string `json:"error"`
		Parameters struct {
			Record struct {
				UserName string  `json:"userName"`
				UID      *uint32 `json:"uid"`
			} `json:"record"`
		} `json:"parameters"`
	}
	if err := json.Unmarshal(text, &reply); err != nil {
		return "", fmt.Errorf("userdb: %w", err)
	}
	record := reply.Parameters.Record
	switch {
	case reply.Error == userInterface+"NoRecordFound":
		return "", nil
	case reply.Error != "":
		return "", fmt.Errorf("userdb: %s", escape.Cut([]byte(reply.Error), 256))
	case record.UID == nil || *record.UID != uid:
		return "", errors.New("userdb: record of another user")
	case !isName([]byte(record.UserName)):
		return "", fmt.Errorf("userdb: uid %d has the invalid name %q", uid, escape.Cut([]byte(record.UserName), 256))
	}
	return escape.Name([]byte(record.UserName)), nil
}
