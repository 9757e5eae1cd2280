using System;
using System.IO;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;

// The server of the classic pair: it authenticates one client, reads a message that ends in "<EOF>", and answers with one.
public sealed class SslTcpServer
{
	static bool mutual;

	static bool ValidateClientCertificate(object sender, X509Certificate certificate, X509Chain chain, SslPolicyErrors sslPolicyErrors)
	{
		Console.WriteLine($"Client certificate: {certificate?.Subject}, {sslPolicyErrors}");
		// The root is in no store of this machine's.
		return (sslPolicyErrors & ~SslPolicyErrors.RemoteCertificateChainErrors) == SslPolicyErrors.None
			&& (certificate != null && certificate.Subject.Contains("CN=client.example") || !mutual);
	}

	static string ReadMessage(SslStream sslStream)
	{
		var buffer = new byte[2048];
		var messageData = new StringBuilder();
		for (int bytes; (bytes = sslStream.Read(buffer, 0, buffer.Length)) != 0;) {
			messageData.Append(Encoding.UTF8.GetString(buffer, 0, bytes));
			if (messageData.ToString().IndexOf("<EOF>") != -1) break;
		}
		return messageData.ToString();
	}

	public static int Main(string[] args)
	{
		var serverCertificate = new X509Certificate2(args[1], "password");
		mutual = args[2] == "true";
		var listener = new TcpListener(IPAddress.Loopback, int.Parse(args[0]));
		listener.Start();
		Console.WriteLine("Waiting for a client to connect...");
		using (var client = listener.AcceptTcpClient())
		using (var sslStream = new SslStream(client.GetStream(), false, ValidateClientCertificate)) {
			try {
				sslStream.AuthenticateAsServer(serverCertificate, mutual, SslProtocols.Tls12, false);
				sslStream.ReadTimeout = 5000;
				sslStream.WriteTimeout = 5000;
				Console.WriteLine($"Protocol: {sslStream.SslProtocol}, authenticated {sslStream.IsAuthenticated}, as server {sslStream.IsServer}, mutually {sslStream.IsMutuallyAuthenticated}");
				Console.WriteLine("Received: {0}", ReadMessage(sslStream));
				sslStream.Write(Encoding.UTF8.GetBytes("Hello from the server.<EOF>"));
			} catch (AuthenticationException e) {
				Console.WriteLine("Exception: {0}", e.Message);
				return 1;
			}
		}
		return 0;
	}
}
