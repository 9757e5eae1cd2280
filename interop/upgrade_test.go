//go:build unix

package interop_test

import (
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
)

// This file begins sessions on connections that speak another protocol first, with servers that others wrote.

// daemonDir is a directory for a server that may drop its privileges: others reach what is in it.
func daemonDir(t *testing.T, owner string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "interop")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	if uid, gid := idsOf(t, owner); os.Getuid() == 0 && owner != "" {
		require.NoError(t, os.Chown(dir, uid, gid))
	}
	return dir
}

func idsOf(t *testing.T, name string) (uid, gid int) {
	t.Helper()
	if name == "" {
		return os.Getuid(), os.Getgid()
	}
	u, err := user.Lookup(name)
	require.NoError(t, err)
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid
}

// put copies files into a daemon's directory, for their owner only.
func put(t *testing.T, dir, owner string, files ...string) (copies []string) {
	t.Helper()
	uid, gid := idsOf(t, owner)
	for i, f := range files {
		data, err := os.ReadFile(f)
		require.NoError(t, err)
		to := filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(f)))
		require.NoError(t, os.WriteFile(to, data, 0o600))
		if os.Getuid() == 0 {
			require.NoError(t, os.Chown(to, uid, gid))
		}
		copies = append(copies, to)
	}
	return copies
}

// as runs a command as a user, if we are root; some servers insist.
func as(t *testing.T, owner string, cmd *exec.Cmd) *exec.Cmd {
	if os.Getuid() == 0 {
		uid, gid := idsOf(t, owner)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	return cmd
}

// ask sends a line and wants an answer that begins so, as SMTP, IMAP and FTP do it; what is "" is not sent.
func ask(t *testing.T, conn io.ReadWriter, line, want string) string {
	t.Helper()
	if line != "" {
		_, err := io.WriteString(conn, line+"\r\n")
		require.NoError(t, err)
	}
	var all string
	for {
		answer := plainLine(t, conn)
		all += answer + "\n"
		if strings.HasPrefix(answer, want) {
			return all
		}
		require.False(t, len(answer) > 3 && answer[3] == ' ' && answer[0] >= '4' && answer[0] <= '5', "%q is answered %q", line, answer)
	}
}

// plainLine reads a line, and not an octet more: what follows may be TLS.
func plainLine(t *testing.T, conn io.Reader) string {
	t.Helper()
	var line []byte
	b := make([]byte, 1)
	for {
		_, err := io.ReadFull(conn, b)
		require.NoError(t, err, "after %q", line)
		if b[0] == '\n' {
			return strings.TrimSuffix(string(line), "\r")
		}
		line = append(line, b[0])
	}
}

// upgrade begins a session on conn.
func upgrade(t *testing.T, conn net.Conn, opts *sslstream.ClientOptions, more ...sslstream.Option) *sslstream.Stream {
	t.Helper()
	s := sslstream.New(conn, more...)
	t.Cleanup(func() { s.Close() })
	require.NoError(t, s.AuthenticateAsClient(testContext(t), opts))
	assert.Equal(t, opts.EnabledProtocols, s.Protocol())
	s.SetReadTimeout(patience)
	return s
}

// TestPostgres answers the server's S to our SSLRequest with a ClientHello, and asks it what it knows of the session.
func TestPostgres(t *testing.T) {
	const install, owner = "apt-get install postgresql", "postgres"
	postgres, initdb := need(t, "postgres", install), need(t, "initdb", install)
	p := newPKI(t)
	dir := daemonDir(t, owner)
	data := filepath.Join(dir, "data")
	out, err := as(t, owner, exec.Command(initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	files := put(t, dir, owner, p.serverFile, p.serverKey, p.caFile)
	eachWay(t, func(t *testing.T, v sslstream.Protocols, mutual bool) {
		hba := "hostssl all all 127.0.0.1/32 trust" + when(mutual, " clientcert=verify-ca") + "\n"
		require.NoError(t, os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(hba), 0o644))
		port := freePort(t)
		server := startCmd(t, as(t, owner, exec.Command(postgres, "-D", data, "-p", port, "-k", dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "ssl=on",
			"-c", "ssl_cert_file="+files[0], "-c", "ssl_key_file="+files[1], "-c", "ssl_ca_file="+files[2],
			"-c", "ssl_min_protocol_version="+tlsv(v), "-c", "ssl_max_protocol_version="+tlsv(v))))
		server.stop = os.Interrupt // or it would leave its shared memory behind
		server.shows("ready to accept connections")

		conn := dial(t, port)
		_, err := conn.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}) // SSLRequest
		require.NoError(t, err)
		answer := make([]byte, 1)
		_, err = io.ReadFull(conn, answer)
		require.NoError(t, err)
		require.Equal(t, "S", string(answer))
		s := upgrade(t, conn, p.clientOptions(v, mutual))
		assert.Equal(t, mutual, s.IsMutuallyAuthenticated())

		send := func(kind string, body string) {
			size := len(body) + 4
			_, err := io.WriteString(s, kind+string([]byte{byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)})+body)
			require.NoError(t, err)
		}
		var row string
		until := func(kind byte) {
			for {
				header := make([]byte, 5)
				_, err := io.ReadFull(s, header)
				require.NoError(t, err)
				body := make([]byte, int(header[1])<<24|int(header[2])<<16|int(header[3])<<8|int(header[4])-4)
				_, err = io.ReadFull(s, body)
				require.NoError(t, err)
				require.NotEqual(t, byte('E'), header[0], "%s", body)
				if header[0] == 'D' {
					row = string(body[6:]) // one column
				}
				if header[0] == kind {
					return
				}
			}
		}
		send("", "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00")
		until('Z')
		send("Q", "select version || ' ' || cipher || ' ' || coalesce(client_dn, '') from pg_stat_ssl where pid = pg_backend_pid()\x00")
		until('Z')
		assert.Equal(t, tlsv(v)+" "+opensslName(s.NegotiatedCipherSuite())+" "+when(mutual, "/O=sslstream tests/CN=client.example"), row)
		send("X", "")
		_, err = s.Read(answer)
		assert.ErrorIs(t, err, io.EOF)
	})
}

// TestIMAP says STARTTLS to Dovecot.
func TestIMAP(t *testing.T) {
	dovecot := need(t, "dovecot", "apt-get install dovecot-imapd")
	needRoot(t, "dovecot")
	p := newPKI(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			port, dir := freePort(t), daemonDir(t, "")
			config := filepath.Join(dir, "dovecot.conf")
			require.NoError(t, os.WriteFile(config, []byte(fmt.Sprintf(`
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
protocols = imap
listen = 127.0.0.1
ssl = required
ssl_cert = <%[3]s
ssl_key = <%[4]s
ssl_min_protocol = %[5]s
mail_location = maildir:%[1]s/mail
passdb { 
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=%[1]s/home
}
service imap-login {
  chroot =
  inet_listener imap {
    port = %[2]s
  }
  inet_listener imaps {
    port = 0
  }
}
`, dir, port, p.serverFile, p.serverKey, tlsv(v.protocol))), 0o644))
			start(t, dovecot, "-F", "-c", config)
			conn := dial(t, port)
			greeting := ask(t, conn, "", "* OK")
			assert.Contains(t, greeting, "STARTTLS")
			ask(t, conn, "a STARTTLS", "a OK")
			s := upgrade(t, conn, p.clientOptions(v.protocol, false))
			assert.Contains(t, ask(t, s, "b CAPABILITY", "b OK"), "AUTH=PLAIN", "which it offers to who is safe")
			ask(t, s, "c LOGOUT", "c OK")
			_, err := io.ReadAll(s)
			require.NoError(t, err)
			assert.True(t, s.ReceivedCloseNotify())
		})
	}
}

// TestSMTP says STARTTLS to Postfix.
func TestSMTP(t *testing.T) {
	postfix := need(t, "postfix", "apt-get install postfix")
	needRoot(t, "postfix")
	p := newPKI(t)
	eachWay(t, func(t *testing.T, v sslstream.Protocols, mutual bool) {
		port, dir := freePort(t), daemonDir(t, "")
		for _, d := range []string{"queue", "data", "etc"} {
			require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o755))
		}
		uid, gid := idsOf(t, "postfix")
		require.NoError(t, os.Chown(filepath.Join(dir, "data"), uid, gid))
		write := func(name, text string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644))
		}
		write("main.cf", fmt.Sprintf(`
compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
inet_interfaces = 127.0.0.1
myhostname = %[2]s
alias_maps =
local_recipient_maps =
smtpd_tls_security_level = may
smtpd_tls_chain_files = %[3]s, %[4]s
smtpd_tls_protocols = %[5]s
smtpd_tls_mandatory_protocols = %[5]s
smtpd_tls_CAfile = %[6]s
smtpd_tls_ask_ccert = %[7]s
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
`, dir, serverName, p.serverKey, p.serverFile, tlsv(v), p.caFile, map[bool]string{true: "yes", false: "no"}[mutual]))
		write("master.cf", fmt.Sprintf(`
127.0.0.1:%s inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
anvil unix - - n - 1 anvil
cleanup unix n - n - 0 cleanup
pickup unix n - n 60 1 pickup
qmgr unix n - n 300 1 qmgr
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
`, port))
		cmd := exec.Command(postfix, "-c", filepath.Join(dir, "etc"), "start-fg")
		startCmd(t, cmd)
		t.Cleanup(func() { exec.Command(postfix, "-c", filepath.Join(dir, "etc"), "abort").Run() })
		conn := dial(t, port)
		ask(t, conn, "", "220 ")
		assert.Contains(t, ask(t, conn, "EHLO client.example", "250 "), "STARTTLS")
		ask(t, conn, "STARTTLS", "220 ")
		s := upgrade(t, conn, p.clientOptions(v, mutual))
		assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
		assert.NotContains(t, ask(t, s, "EHLO client.example", "250 "), "STARTTLS")
		ask(t, s, "QUIT", "221 ")
		_, err := io.ReadAll(s)
		require.NoError(t, err)
		assert.True(t, s.ReceivedCloseNotify())
		require.Eventually(t, func() bool {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			said := string(log)
			return strings.Contains(said, tlsv(v)+" with cipher "+opensslName(s.NegotiatedCipherSuite())) && (!mutual || strings.Contains(said, "Trusted TLS connection"))
		}, patience, 20*time.Millisecond, "its log says what was negotiated")
	})
}

// TestLDAP sends slapd the StartTLS extended request (RFC 4511, Section 4.14).
func TestLDAP(t *testing.T) {
	slapd := need(t, "slapd", "apt-get install slapd")
	p := newPKI(t)
	eachWay(t, func(t *testing.T, v sslstream.Protocols, mutual bool) {
		port, dir := freePort(t), t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "db"), 0o700))
		config := filepath.Join(dir, "slapd.conf")
		require.NoError(t, os.WriteFile(config, []byte(fmt.Sprintf(`
include /etc/ldap/schema/core.schema
pidfile %[1]s/pid
argsfile %[1]s/args
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile %[2]s
TLSCertificateKeyFile %[3]s
TLSCACertificateFile %[4]s
TLSVerifyClient %[5]s
TLSProtocolMin %[6]s
database mdb
suffix "dc=example"
directory %[1]s/db
`, dir, p.serverFile, p.serverKey, p.caFile, map[bool]string{true: "demand", false: "never"}[mutual],
			map[sslstream.Protocols]string{sslstream.ProtocolTLS12: "3.3", sslstream.ProtocolTLS13: "3.4"}[v])), 0o600))
		start(t, slapd, "-h", "ldap://127.0.0.1:"+port, "-f", config, "-d", "0")
		conn := dial(t, port)
		// request sends an LDAPMessage and returns the answer.
		request := func(rw io.ReadWriter, number byte, operation []byte) string {
			message := append([]byte{0x30, byte(3 + len(operation)), 2, 1, number}, operation...)
			_, err := rw.Write(message)
			require.NoError(t, err)
			header := make([]byte, 2)
			_, err = io.ReadFull(rw, header)
			require.NoError(t, err)
			require.Less(t, header[1], byte(0x80))
			answer := make([]byte, header[1])
			_, err = io.ReadFull(rw, answer)
			require.NoError(t, err)
			require.Equal(t, []byte{0x0a, 1, 0}, answer[5:8], "the result is success: %q", answer)
			return string(answer)
		}
		extended := func(oid string) []byte {
			return append([]byte{0x77, byte(2 + len(oid)), 0x80, byte(len(oid))}, oid...)
		}
		request(conn, 1, extended("1.3.6.1.4.1.1466.20037"))
		s := upgrade(t, conn, p.clientOptions(v, mutual))
		assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
		if mutual {
			request(s, 2, append([]byte{0x60, 19, 2, 1, 3, 4, 0, 0xa3, 12, 4, 8}, "EXTERNAL\x04\x00"...)) // bind as who we are
			assert.Contains(t, request(s, 3, extended("1.3.6.1.4.1.4203.1.11.3")), "dn:cn=client.example,o=sslstream tests")
		} else {
			request(s, 2, []byte{0x60, 7, 2, 1, 3, 4, 0, 0x80, 0}) // bind as nobody
		}
		require.NoError(t, s.CloseWrite())
		_, err := io.ReadAll(s)
		require.NoError(t, err)
		assert.True(t, s.ReceivedCloseNotify())
	})
}

// TestSMTPServer has Python's smtplib upgrade a session with a server of ours.
func TestSMTPServer(t *testing.T) {
	python := need(t, "python3", "apt-get install python3")
	p := newPKI(t)
	port, conn := accept(t)
	client := start(t, python, "-c", fmt.Sprintf(`
import smtplib, ssl
s = smtplib.SMTP("127.0.0.1", %s)
c = ssl.create_default_context(cafile=%q)
s._host = %q
s.starttls(context=c)
print("noop", s.noop()[0], s.sock.version(), flush=True)
s.quit()
`, port, p.caFile, serverName))
	inner := conn()
	text := func(rw io.ReadWriteCloser) func(want, answer string) {
		c := textproto.NewConn(rw)
		return func(want, answer string) {
			if want != "" {
				line, err := c.ReadLine()
				require.NoError(t, err)
				require.Equal(t, want, strings.ToUpper(strings.Fields(line)[0]))
			}
			require.NoError(t, c.PrintfLine("%s", answer))
		}
	}
	plain := text(inner)
	plain("", "220 server.example")
	plain("EHLO", "250-server.example\r\n250 STARTTLS")
	plain("STARTTLS", "220 go ahead")
	s := sslstream.New(inner)
	defer s.Close()
	require.NoError(t, s.AuthenticateAsServer(testContext(t), &sslstream.ServerOptions{ServerCertificate: &p.server}))
	safe := text(s)
	safe("NOOP", "250 nothing done")
	safe("QUIT", "221 bye")
	client.shows("noop 250 TLSv1.3")
	assert.NoError(t, client.ends())
}
