<?php
// Writes a verify ticket into files as PHP programs keep it, and names each: ticket_files.php FOLDER TICKET COMPONENT.
declare(strict_types=1);
require 'Symfony/Component/Cache/autoload.php';

use Symfony\Component\Cache\Adapter\FilesystemAdapter;
use Symfony\Component\Cache\Adapter\PhpFilesAdapter;

set_error_handler(static fn (int $level, string $text) => throw new ErrorException($text));
[, $folder, $ticket, $component] = $argv;

/** The one file below a folder, moved to its top. */
function only_file(string $below, string $to): void
{
    $files = new RecursiveIteratorIterator(new RecursiveDirectoryIterator($below, FilesystemIterator::SKIP_DOTS));
    $found = array_values(array_filter(iterator_to_array($files, false), static fn (SplFileInfo $file) => $file->isFile()));
    count($found) === 1 || throw new Exception("$below has " . count($found) . ' files');
    rename($found[0]->getPathname(), $to);
}

// EasyWeChat keeps it under this name, in Symfony's cache unless it is told otherwise.
foreach (['symfony' => FilesystemAdapter::class, 'symfony.php' => PhpFilesAdapter::class] as $name => $class) {
    $cache = new $class('easywechat', 0, "$folder/below-$name");
    $cache->save($cache->getItem("open_platform.verify_ticket.$component")->set($ticket)->expiresAfter(6000));
    only_file("$folder/below-$name", "$folder/$name");
}
$message = ['AppId' => $component, 'InfoType' => 'component_verify_ticket', 'ComponentVerifyTicket' => $ticket];
$written = [
    'serialized' => serialize($ticket),
    'serialized-message' => serialize($message),
    'json' => json_encode($message, JSON_PRETTY_PRINT),
    'exported.php' => '<?php return ' . var_export($message, true) . ';',
    'exported-text.php' => "<?php\nreturn " . var_export($ticket, true) . ";\n",
    // ThinkPHP's file cache: the lifetime in twelve digits, and an exit before the value.
    'thinkphp.php' => "<?php\n//" . sprintf('%012d', 6000) . "\n exit();?>\n" . serialize($ticket),
];
foreach ($written as $name => $text) {
    file_put_contents("$folder/$name", $text);
}
echo implode("\n", ['symfony', 'symfony.php', ...array_keys($written), 'ok']), "\n";
