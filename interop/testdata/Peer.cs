using System;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Threading.Tasks;

// A peer of Mono's SslStream: echoes as a server, checks the echo as a client, and prints what it knows of each session.
// Both certificates are asked for by callbacks, and both peers' certificates are judged by one.
static class Peer
{
	static bool mutual;
	static X509Certificate2 own;

	static int Main(string[] a)
	{
		bool client = a[0] == "client";
		int port = int.Parse(a[1]), size = int.Parse(a[7]), sessions = int.Parse(a[8]);
		mutual = a[6] == "true";
		if (!client || mutual) own = new X509Certificate2(a[4] + ".pfx", "password");
		var pattern = new byte[size];
		for (int i = 0; i < size; i++) pattern[i] = (byte)(i * 31 + 7);
		TcpListener listener = null;
		if (!client) {
			listener = new TcpListener(IPAddress.Loopback, port);
			listener.Start();
			Console.WriteLine("ready");
		}
		for (int round = 0; round < sessions; round++) {
			var tcp = client ? new TcpClient("127.0.0.1", port) : listener.AcceptTcpClient();
			var s = client && mutual
				? new SslStream(tcp.GetStream(), false, Judge, Select)
				: new SslStream(tcp.GetStream(), false, Judge);
			int echoed = 0;
			string end = "open";
			if (client) {
				s.AuthenticateAsClient("server.example", null, SslProtocols.Tls12, false);
				var send = Task.Run(() => s.Write(pattern, 0, size));
				var got = new byte[size];
				for (int n; echoed < size; echoed += n)
					if ((n = s.Read(got, echoed, size - echoed)) == 0) throw new IOException("the end before all of the echo");
				send.Wait();
				if (!got.SequenceEqual(pattern)) throw new IOException("the echo is not what was sent");
			} else {
				s.AuthenticateAsServer(own, mutual, SslProtocols.Tls12, false);
				var buffer = new byte[65536];
				for (int n; (n = s.Read(buffer, 0, buffer.Length)) > 0; echoed += n) s.Write(buffer, 0, n);
				end = "end"; // of either kind: it does not tell
			}
			var peer = s.RemoteCertificate == null ? "" : new X509Certificate2(s.RemoteCertificate).GetNameInfo(X509NameType.SimpleName, false);
			var protocol = s.SslProtocol == SslProtocols.Tls12 ? "TLSv1.2" : s.SslProtocol.ToString();
			Console.WriteLine($"session protocol={protocol} peer={peer} echoed={echoed} mutual={s.IsMutuallyAuthenticated} encrypted={s.IsEncrypted} signed={s.IsSigned} strength={s.CipherStrength} end={end}");
			s.Close();
			tcp.Close();
		}
		return 0;
	}

	static bool Judge(object sender, X509Certificate certificate, X509Chain chain, SslPolicyErrors errors)
	{
		Console.WriteLine($"judge {certificate?.Subject} {errors}");
		if (certificate == null) return !mutual;
		// The root is in no store of Mono's: the chain may end unknown, and no name may be wrong.
		return (errors & ~SslPolicyErrors.RemoteCertificateChainErrors) == 0 && certificate.Issuer.Contains("Interop Intermediate");
	}

	static X509Certificate Select(object sender, string host, X509CertificateCollection local, X509Certificate remote, string[] issuers)
	{
		Console.WriteLine($"select {host}");
		return own;
	}
}
