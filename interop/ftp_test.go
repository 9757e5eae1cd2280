//go:build unix

package interop_test

import (
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
)

// TestFTP says AUTH TLS to ProFTPD (RFC 4217), fetches by data connections that resume the control connection's session, and goes back
// to plain text on the same connection by CCC, in both orders of the two close_notify alerts.
func TestFTP(t *testing.T) {
	proftpd := need(t, "proftpd", "apt-get install proftpd-core proftpd-mod-crypto")
	needRoot(t, "proftpd")
	p := newPKI(t)
	for _, v := range versions {
		for _, first := range []bool{true, false} {
			t.Run(v.name+when(first, "/ours first")+when(!first, "/theirs first"), func(t *testing.T) {
				port, dir := freePort(t), daemonDir(t, "nobody")
				require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o644))
				config := filepath.Join(dir, "proftpd.conf")
				require.NoError(t, os.WriteFile(config, []byte(fmt.Sprintf(`
LoadModule mod_tls.c
ServerType standalone
DefaultAddress 127.0.0.1
Port %[2]s
PidFile %[1]s/pid
ScoreboardFile %[1]s/score
SystemLog %[1]s/log
WtmpLog none
UseIPv6 off
User nobody
Group nogroup
AuthOrder mod_auth_unix.c
RequireValidShell off
UseFtpUsers off
TLSEngine on
TLSRequired auth
TLSSessionTickets on
TLSProtocol %[3]s
TLSECCertificateFile %[4]s
TLSECCertificateKeyFile %[5]s
TLSCertificateChainFile %[4]s
TLSVerifyClient off
TLSLog %[1]s/tls
<Anonymous %[1]s>
  User nobody
  Group nogroup
  UserAlias anonymous nobody
</Anonymous>
`, dir, port, tlsv(v.protocol), p.serverFile, p.serverKey)), 0o644))
				start(t, proftpd, "-n", "-c", config)
				conn := dial(t, port)
				ask(t, conn, "", "220 ")
				ask(t, conn, "AUTH TLS", "234 ")
				opts := p.clientOptions(v.protocol, false)
				control := upgrade(t, conn, opts, sslstream.LeaveInnerOpen())
				ask(t, control, "USER anonymous", "331 ")
				ask(t, control, "PASS who@client.example", "230 ")
				ask(t, control, "PBSZ 0", "200 ")
				ask(t, control, "PROT P", "200 ")
				ask(t, control, "TYPE I", "200 ")
				answer := ask(t, control, "EPSV", "229 ")
				data := dial(t, regexp.MustCompile(`\|\|\|(\d+)\|`).FindStringSubmatch(answer)[1])
				ask(t, control, "RETR file", "150 ")
				s := upgrade(t, data, opts)
				assert.True(t, s.ConnectionState().DidResume, "the server demands that data connections resume the session")
				got, err := io.ReadAll(s)
				require.NoError(t, err)
				assert.True(t, text == string(got), "%d bytes of %d", len(got), len(text))
				assert.True(t, s.ReceivedCloseNotify())
				require.NoError(t, s.Close())
				ask(t, control, "", "226 ")

				ask(t, control, "CCC", "200 ")
				if !first {
					_, err := control.Read(make([]byte, 1))
					require.ErrorIs(t, err, io.EOF)
					require.True(t, control.ReceivedCloseNotify())
				}
				inner, err := control.Unwrap(testContext(t))
				require.NoError(t, err)
				require.Equal(t, conn, inner)
				ask(t, conn, "NOOP", "200 ")
				ask(t, conn, "QUIT", "221 ")
			})
		}
	}
}

// ftpServer is as much of an FTP server as a client needs to go to TLS and back.
func ftpServer(t *testing.T, conn net.Conn, opts *sslstream.ServerOptions, oursFirst bool) (said []string) {
	var s *sslstream.Stream
	c := textproto.NewConn(conn)
	answer := func(line string) { require.NoError(t, c.PrintfLine("%s", line)) }
	answer("220 hello")
	for {
		line, err := c.ReadLine()
		if err != nil {
			return said
		}
		said = append(said, line)
		switch verb, _, _ := strings.Cut(line, " "); strings.ToUpper(verb) {
		case "AUTH":
			answer("234 go ahead")
			s = sslstream.New(conn, sslstream.LeaveInnerOpen())
			require.NoError(t, s.AuthenticateAsServer(testContext(t), opts))
			s.SetReadTimeout(patience)
			c = textproto.NewConn(s)
		case "USER":
			answer("331 who says so?")
		case "PASS":
			answer("230 welcome")
		case "CCC":
			answer("200 in plain text then")
			if !oursFirst {
				_, err := s.Read(make([]byte, 1))
				require.ErrorIs(t, err, io.EOF)
			}
			_, err := s.Unwrap(testContext(t))
			require.NoError(t, err)
			c = textproto.NewConn(conn)
			said = append(said, "(plain)")
		case "FEAT":
			answer("211-features\r\n AUTH TLS\r\n CCC\r\n211 end")
		case "PWD":
			answer(`257 "/"`)
		case "QUIT":
			answer("221 bye")
			return said
		default:
			answer("200 fine")
		}
	}
}

// TestFTPServer has Python's ftplib go to TLS and back to plain text with a server of ours.
func TestFTPServer(t *testing.T) {
	python := need(t, "python3", "apt-get install python3")
	p := newPKI(t)
	for _, v := range versions {
		for _, first := range []bool{true, false} {
			t.Run(v.name+when(first, "/ours first")+when(!first, "/theirs first"), func(t *testing.T) {
				port, conn := accept(t)
				client := start(t, python, "-c", fmt.Sprintf(`
import ftplib, ssl
c = ssl.create_default_context(cafile=%q)
f = ftplib.FTP_TLS(context=c)
f.connect("127.0.0.1", %s)
f.host = %q
f.login("user", "secret")
print("safe", f.sock.version(), flush=True)
f.ccc()
print("plain", f.voidcmd("NOOP"), flush=True)
f.quit()
`, p.caFile, port, serverName))
				said := ftpServer(t, conn(), p.serverOptions(v.protocol, false), first)
				client.shows("safe " + tlsv(v.protocol))
				client.shows("plain 200 fine")
				assert.NoError(t, client.ends())
				assert.Equal(t, []string{"CCC", "(plain)", "NOOP", "QUIT"}, said[len(said)-4:])
			})
		}
	}
}

// TestFTPServerWithLftp has lftp do the same: it sends its close_notify first, and waits for ours.
func TestFTPServerWithLftp(t *testing.T) {
	lftp := need(t, "lftp", "apt-get install lftp")
	p := newPKI(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			port, conn := accept(t)
			client := start(t, lftp, "-c", fmt.Sprintf(`set ftp:ssl-force true; set ftp:ssl-protect-data false; set ftp:ssl-use-ccc true; set net:max-retries 1; set ssl:ca-file %s; set ssl:check-hostname false; open -u user,secret -p %s 127.0.0.1; quote NOOP; bye`, p.caFile, port))
			said := ftpServer(t, conn(), p.serverOptions(v.protocol, false), false)
			assert.NoError(t, client.ends())
			assert.Contains(t, said, "(plain)")
			assert.Contains(t, said, "NOOP")
		})
	}
}
