package prometheus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An authority signs certificates for a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = a.parse(x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key))
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) parse(der []byte, err error) *x509.Certificate {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// issue writes a certificate for 127.0.0.1 (and the name) to files.
func (a *authority) issue(certFile, keyFile, name string, change func(*x509.Certificate)) {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	cert := a.parse(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	writePEM(a.t, certFile, "CERTIFICATE", cert.Raw)
	writePEM(a.t, keyFile, "EC PRIVATE KEY", der)
}

func (a *authority) write(file string) { writePEM(a.t, file, "CERTIFICATE", a.cert.Raw) }

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	writeFile(t, file, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

func writeFile(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const webConfigTLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"

// The password of "prometheus" is "secret".
const webConfigUsers = "basic_auth_users:\n  prometheus: $2a$04$pbQ53yVqHfCjy/YtH8SYKOQZpOMl2uibn0jovyorCYkBCs1M6zd/e\n"

// serveTLS serves over TLS with a certificate that change may make invalid.
func serveTLS(t *testing.T, config string, change func(*x509.Certificate)) (e *endpoint, url, dir string, ca *authority) {
	t.Helper()
	dir, ca = t.TempDir(), newAuthority(t, "test authority")
	ca.write(filepath.Join(dir, "ca.crt"))
	ca.issue(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"), "first", change)
	web := filepath.Join(dir, "web.yml")
	writeFile(t, web, config)
	e, _ = newTestEndpoint(t, func(o *Options) { o.WebConfigFile = web })
	addr := serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0]
	return e, "https://" + addr.String() + "/metrics", dir, ca
}

// client returns a client that always opens new connections.
func client(t *testing.T, config *tls.Config) *http.Client {
	t.Helper()
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
}

func TestInvalidCertificatesAreErrors(t *testing.T) {
	other := newAuthority(t, "another authority")
	for _, test := range []struct {
		name   string
		change func(*x509.Certificate)
		pool   *x509.CertPool
		want   string
	}{
		{name: "valid"},
		{name: "expired", want: "certificate has expired or is not yet valid",
			change: func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(1, 0), time.Unix(2, 0) }},
		{name: "wrong host", want: "certificate is valid for 192.0.2.1, not 127.0.0.1",
			change: func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }},
		{name: "unknown authority", pool: other.pool(), want: "certificate signed by unknown authority"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, url, _, ca := serveTLS(t, webConfigTLS, test.change)
			if test.pool == nil {
				test.pool = ca.pool()
			}
			r, err := client(t, &tls.Config{RootCAs: test.pool}).Get(url)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("the client's error is %v, want %q", err, test.want)
				}
				r, err = client(t, &tls.Config{InsecureSkipVerify: true}).Get(url) // one refused request does not affect others
			}
			if err != nil {
				t.Fatal(err)
			}
			if page := bodyOf(t, r); r.StatusCode != 200 || !strings.Contains(page, "tcp_listen_sockets{") {
				t.Errorf("status %d", r.StatusCode)
			}
			plain, err := testClient.Get("http" + strings.TrimPrefix(url, "https"))
			if err != nil || plain.StatusCode != 400 {
				t.Errorf("without TLS: %v, %v", plain, err)
			}
		})
	}
}

func TestInvalidWebConfigsAreErrors(t *testing.T) {
	for _, test := range []struct{ name, config, want string }{
		{"not there", "", `open DIR/web.yml: no such file or directory`},
		{"no certificate", webConfigTLS, `failed to read cert_file (DIR/server.crt): open DIR/server.crt: no such file or directory`},
		{"key of another", "tls_server_config:\n  cert_file: good.crt\n  key_file: other.key\n", `failed to load X509KeyPair: tls: private key does not match public key`},
		{"no certificate in it", "tls_server_config:\n  cert_file: web.yml\n  key_file: other.key\n", `failed to load X509KeyPair: tls: failed to find any PEM data in certificate input`},
		{"unknown key", "tls_config: {}\n", "yaml: unmarshal errors:\n  line 1: field tls_config not found in type web.Config"},
		{"secret in the wrong place", "basic_auth_users: hunter2\n", "yaml: unmarshal errors:\n  line 1: cannot unmarshal !!str `...` into map[string]config.Secret"},
		{"password in clear", "basic_auth_users:\n  prometheus: hunter2\n", "crypto/bcrypt: hashedSecret too short to be a bcrypted password"},
		{"client authority alone", webConfigTLS + "  client_ca_file: good.crt\n", `failed to read cert_file (DIR/server.crt): open DIR/server.crt: no such file or directory`},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, ca := t.TempDir(), newAuthority(t, "test authority")
			ca.issue(filepath.Join(dir, "good.crt"), filepath.Join(dir, "good.key"), "first", nil)
			ca.issue(filepath.Join(dir, "other.crt"), filepath.Join(dir, "other.key"), "first", nil)
			web := filepath.Join(dir, "web.yml")
			if test.config != "" {
				writeFile(t, web, test.config)
			}
			e, book := newTestEndpoint(t, func(o *Options) { o.WebConfigFile = web })
			err := e.Listen(t.Context())
			want := fmt.Sprintf("web_config_file %q: %s", web, strings.ReplaceAll(test.want, "DIR", dir))
			if err == nil || err.Error() != want {
				t.Errorf("Listen gives\n%v, want\n%s", err, want)
			}
			if len(e.listeners)+len(book.all()) > 0 {
				t.Errorf("%d addresses bound, logged %q", len(e.listeners), book.all())
			}
		})
	}
}

func TestReplacedCertificatesAreUsed(t *testing.T) {
	_, url, dir, ca := serveTLS(t, webConfigTLS, nil)
	c := client(t, &tls.Config{RootCAs: ca.pool()})
	name := func() string {
		t.Helper()
		r, err := c.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		bodyOf(t, r)
		return r.TLS.PeerCertificates[0].Subject.CommonName
	}
	if got := name(); got != "first" {
		t.Errorf("certificate of %q", got)
	}
	ca.issue(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"), "second", nil)
	if got := name(); got != "second" {
		t.Errorf("after it was replaced, the certificate is that of %q", got)
	}
	writeFile(t, filepath.Join(dir, "server.crt"), "half a certifi")
	if r, err := c.Get(url); err == nil {
		t.Errorf("with a broken certificate: status %d", r.StatusCode)
	}
	ca.issue(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"), "third", nil)
	if got := name(); got != "third" {
		t.Errorf("after it was mended, the certificate is that of %q", got)
	}
}

func TestReplacedPasswordsAreUsed(t *testing.T) {
	t.Parallel()
	_, url, dir, ca := serveTLS(t, webConfigTLS, nil)
	c := client(t, &tls.Config{RootCAs: ca.pool()})
	status := func(user, password string) int {
		t.Helper()
		r, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth(user, password)
		answer, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		return answer.StatusCode
	}
	if got := status("", ""); got != 200 {
		t.Errorf("without users: status %d", got)
	}
	writeFile(t, filepath.Join(dir, "web.yml"), webConfigTLS+webConfigUsers)
	for _, test := range []struct {
		user, password string
		want           int
	}{{"prometheus", "secret", 200}, {"prometheus", "Secret", 401}, {"prometheus", "", 401}, {"root", "secret", 401}, {"", "", 401}} {
		if got := status(test.user, test.password); got != test.want {
			t.Errorf("%s:%s: status %d, want %d", test.user, test.password, got, test.want)
		}
	}
}

func TestClientCertificatesAreRequired(t *testing.T) {
	config := webConfigTLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
	_, url, dir, ca := serveTLS(t, config, nil)
	pair := func(a *authority, name string) tls.Certificate {
		t.Helper()
		cert, key := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
		a.issue(cert, key, name, nil)
		p, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	good, bad := pair(ca, "scraper"), pair(newAuthority(t, "another authority"), "stranger")
	for _, test := range []struct {
		name  string
		certs []tls.Certificate
		want  string
	}{
		{"none", nil, "tls: certificate required"},
		{"of another authority", []tls.Certificate{bad}, "tls: "},
		{"good", []tls.Certificate{good}, ""},
	} {
		r, err := client(t, &tls.Config{RootCAs: ca.pool(), Certificates: test.certs}).Get(url)
		switch {
		case test.want != "":
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v, want %q", test.name, err, test.want)
			}
		case err != nil:
			t.Errorf("%s: %v", test.name, err)
		default:
			bodyOf(t, r)
		}
	}
}

func TestWebConfigOpenToOthers(t *testing.T) {
	web := filepath.Join(t.TempDir(), "web.yml")
	writeFile(t, web, webConfigUsers)
	if err := os.Chmod(web, 0o644); err != nil {
		t.Fatal(err)
	}
	e, book := newTestEndpoint(t, func(o *Options) { o.WebConfigFile = web })
	if err := e.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	want := `level=WARN msg="every user of this host can read web_config_file; to fix that, run chmod o-r" file=` + web
	if lines := book.warnings(); len(lines) != 1 || lines[0] != want {
		t.Errorf("logged %q, want %q", lines, want)
	}
}
