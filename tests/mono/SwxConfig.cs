// A class as sites have it: the token is a column of its configuration table. It asks WeChat at each use whether the token
// has ended, and fetches another only then, or where there is none. What it does is counted and told at the end.
using System;
using System.Collections.Generic;
using System.Data;
using System.Data.Odbc;
using System.Net;
using System.Threading;

public static class SwxConfig
{
    static readonly string Wechat = Setting("WECHAT");
    static int fetched, refused;

    static string Setting(string name)
    {
        return Environment.GetEnvironmentVariable(name) ?? throw new InvalidOperationException("no " + name);
    }

    static string Ask(string path)
    {
        using (var client = new WebClient())
        {
            return client.DownloadString(Wechat + path);
        }
    }

    // As such classes read JSON: up to the next comma, without the quotes.
    static string JsonValue(string json, string key)
    {
        int at = json.IndexOf("\"" + key + "\"", StringComparison.Ordinal);
        if (at < 0) return "";
        int begin = json.IndexOf(':', at) + 1;
        int end = json.IndexOfAny(new[] { ',', '}' }, begin);
        return json.Substring(begin, end - begin).Trim(' ', '"');
    }

    static string Fetch(string appid, string secret)
    {
        fetched++;
        return JsonValue(
            Ask("/cgi-bin/token?grant_type=client_credential&appid=" + appid + "&secret=" + secret), "access_token");
    }

    static bool HasEnded(string token)
    {
        string errcode = JsonValue(Ask("/cgi-bin/menu/get?access_token=" + token), "errcode");
        if (errcode == "40001" || errcode == "40014" || errcode == "42001") refused++;
        return errcode == "42001";
    }

    static DataRow Row(OdbcConnection connection, string user)
    {
        using (var adapter = new OdbcDataAdapter("select * from SWX_Config where UserName='" + user + "'", connection))
        {
            var table = new DataTable();
            adapter.Fill(table);
            return table.Rows.Count > 0 ? table.Rows[0] : null;
        }
    }

    static string Token(OdbcConnection connection, string user)
    {
        DataRow row = Row(connection, user);
        if (row == null) throw new InvalidOperationException("no row for " + user);
        string token = row["access_token"].ToString();
        if (!string.IsNullOrWhiteSpace(token) && !HasEnded(token)) return token;
        token = Fetch(row["AppID"].ToString(), row["AppSecret"].ToString());
        string update = "update SWX_Config set access_token='" + token + "' where UserName='" + user + "'";
        using (var command = new OdbcCommand(update, connection))
        {
            command.ExecuteNonQuery();
        }
        return token;
    }

    // Uses tokens until it has seen so many different ones.
    public static void Main(string[] arguments)
    {
        int wanted = int.Parse(arguments[0]);
        var seen = new HashSet<string>();
        using (var connection = new OdbcConnection(Setting("ODBC")))
        {
            connection.Open();
            DateTime until = DateTime.UtcNow.AddSeconds(50);
            while (seen.Count < wanted)
            {
                if (DateTime.UtcNow > until) throw new TimeoutException(seen.Count + " tokens in time");
                seen.Add(Token(connection, "admin"));
                Thread.Sleep(20);
            }
        }
        Console.WriteLine("fetched " + fetched + " refused " + refused);
    }
}
